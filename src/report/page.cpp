// The page of a report: its sections of text, and the charts between them.
#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "config/yaml.h"
#include "metrics/format_numbers.h"
#include "report/chart.h"
#include "report/page_style.h"
#include "report/report.h"
#include "report/run_charts.h"
#include "report/scale.h"
#include "report/svg.h"
#include "run/environment.h"
#include "run/output_folder.h"

namespace mixtune {

namespace {

using Runs = std::span<const ReportedRun>;

std::string heading(const std::string& text) {
  return fmt::format("<h2>{}</h2>\n", xml_text(text));
}

std::string list_of(const std::vector<std::string>& lines, std::string_view style = "") {
  std::string out = fmt::format("<ul{}>\n", style.empty() ? "" : fmt::format(" class=\"{}\"", style));
  for (const std::string& line : lines) out += fmt::format("<li>{}</li>\n", xml_text(line));
  return out + "</ul>\n";
}

std::string where_it_stands(const RunRecords& records) {
  if (records.steps() == 0) return "no step was recorded";
  const std::string at = grouped(static_cast<double>(records.last_step()));
  if (records.total_steps() <= records.last_step()) return fmt::format("all {} steps", at);
  return fmt::format("step {} of {}", at, grouped(static_cast<double>(records.total_steps())));
}

// The name is left out where there is one run: the page has it as its title.
std::string name_before(Runs runs, const ReportedRun& run) {
  return runs.size() > 1 ? fmt::format("<h3>{}</h3>\n", xml_text(run.name)) : "";
}

// The text is anybody's.
DeviceScale scale_of(const ReportedRun& run) {
  for (const auto& [name, value] : run.environment)
    if (name == kPeakOfMfu) return {.peak = printable(value, 100)};
  return {};
}

std::string summaries(Runs runs) {
  std::string out = heading("Summary");
  for (const ReportedRun& run : runs)
    if (const std::vector<std::string> lines = run.records.summary().lines(scale_of(run)); !lines.empty())
      out += name_before(runs, run) + list_of(lines);
  return out;
}

std::vector<std::string> lines_of(const Alerts& alerts) {
  std::vector<std::string> lines;
  for (const Alert& alert : alerts.all())
    lines.push_back(alert.first == alert.last
                        ? fmt::format("step {}: {}", alert.first, printable(alert.text, 400))
                        : fmt::format("steps {} to {}: {}", alert.first, alert.last, printable(alert.text, 400)));
  if (alerts.left_out() > 0) lines.push_back(fmt::format("and {} more", alerts.left_out()));
  return lines;
}

std::string warnings(Runs runs) {
  std::string out = heading("Warnings");
  for (const ReportedRun& run : runs) {
    const std::vector<std::string> lines = lines_of(run.records.alerts());
    out += name_before(runs, run) + (lines.empty()
                                         ? "<p>none: every number is finite, and none went out of its range</p>\n"
                                         : list_of(lines, "warn"));
  }
  return out;
}

// What of the files could not be shown.
std::string notes(Runs runs) {
  std::vector<std::string> lines;
  for (const ReportedRun& run : runs) {
    const auto add = [&](const std::string& note) {
      lines.push_back(runs.size() > 1 ? run.name + ": " + note : note);
    };
    if (run.records.unread() > 0)
      add(fmt::format("lines of {} that are cut, no records, or not of a later step: {}", kMetricsFile,
                      grouped(static_cast<double>(run.records.unread()))));
    if (run.records.is_cut_off())
      add(fmt::format("only the first {} lines of {} are shown", grouped(RunRecords::kMostRecords), kMetricsFile));
    for (const std::string& note : run.notes) add(note);
  }
  return lines.empty() ? "" : heading("What is left out") + list_of(lines);
}

// A table of text. Columns whose heads begin with '#' (it is not shown) are of numbers.
struct Table {
  std::vector<std::string> heads = {};  // none: there is no row of heads
  std::vector<std::vector<std::string>> rows = {};
  std::vector<std::string> marks = {};  // SVG before the first text of each row
};

std::string cell(std::string_view tag, std::string_view kind, const std::string& content) {
  return fmt::format("<{0}{1}>{2}</{0}>", tag, kind.empty() ? "" : fmt::format(" class=\"{}\"", kind), content);
}

std::string html_of(const Table& table) {
  const auto is_number = [&](size_t column) {
    return column < table.heads.size() && table.heads[column].starts_with('#');
  };
  std::string out = "<div class=\"scroll\"><table>\n";
  if (!table.heads.empty()) out += "<tr>";
  for (size_t column = 0; column < table.heads.size(); ++column)
    out += cell("th", is_number(column) ? "number" : "",
                xml_text(std::string_view(table.heads[column]).substr(is_number(column) ? 1 : 0)));
  if (!table.heads.empty()) out += "</tr>\n";
  for (size_t row = 0; row < table.rows.size(); ++row) {
    out += "<tr>";
    for (size_t column = 0; column < table.rows[row].size(); ++column)
      out +=
          cell("td",
               is_number(column) ? "number"
               : column > 0      ? "value"
                                 : "",
               (column == 0 && row < table.marks.size() ? table.marks[row] : "") + xml_text(table.rows[row][column]));
    out += "</tr>\n";
  }
  return out + "</table></div>\n";
}

std::string least_of(const ReportedRun& run, const std::string& set) {
  const auto found = std::ranges::find(run.records.evaluations(), set, &NamedSeries::name);
  if (found == run.records.evaluations().end() || found->series.empty()) return "-";
  return fmt::format("{} (step {})", short_number(found->series.whole().least),
                     grouped(static_cast<double>(found->series.step_of_least())));
}

std::vector<std::string> sets_of(Runs runs) {
  std::vector<std::string> sets;
  for (const ReportedRun& run : runs)
    for (const NamedSeries& evaluation : run.records.evaluations())
      if (std::ranges::find(sets, evaluation.name) == sets.end()) sets.push_back(evaluation.name);
  return sets;
}

std::string comparison(Runs runs) {
  Table table{.heads = {"run", "#steps", "#tokens", "#time", "#tokens/s", "#last lm_loss"}};
  const std::vector<std::string> sets = sets_of(runs);
  for (const std::string& set : sets) table.heads.push_back("#least loss of " + (set.empty() ? "evaluations" : set));
  for (size_t i = 0; i < runs.size(); ++i) {
    const RunRecords& records = runs[i].records;
    const Series* loss = records.find("lm_loss");
    const double seconds = records.milliseconds() / 1000;
    table.marks.push_back(fmt::format(
        "<svg viewBox=\"0 0 22 8\" width=\"22\" height=\"8\"><path class=\"line c{}{}\" d=\"M1 4L21 4\"/></svg>",
        i % kColours, i >= kColours ? " dashed" : ""));
    table.rows.push_back({runs[i].name,
                          fmt::format("{} of {}", grouped(static_cast<double>(records.last_step())),
                                      grouped(static_cast<double>(records.total_steps()))),
                          grouped(records.tokens()), duration_text(seconds),
                          seconds > 0 ? grouped(records.tokens() / seconds) : "-",
                          loss ? short_number(loss->last()) : "-"});
    for (const std::string& set : sets) table.rows.back().push_back(least_of(runs[i], set));
  }
  return heading("Side by side") + html_of(table);
}

using Settings = std::vector<std::pair<std::string, std::string>>;

// Each key with the lines of its value; none where the text is no configuration.
Settings settings_of(const std::string& text) try {
  std::vector<std::string> lines(1);
  for (const char c : text) c == '\n' ? lines.emplace_back() : lines.back() += c;
  const std::vector<YamlEntry> entries = parse_flat_yaml(text, kResolvedFile);
  Settings settings;
  for (size_t i = 0; i < entries.size(); ++i) {
    const auto first = static_cast<size_t>(entries[i].line) - 1;
    const size_t end = i + 1 < entries.size() ? static_cast<size_t>(entries[i + 1].line) - 1 : lines.size();
    std::string value;
    for (size_t line = first; line < std::min(end, lines.size()); ++line)
      if (!lines[line].empty()) value += (value.empty() ? "" : " ") + lines[line];
    const size_t colon = value.find(':');
    settings.emplace_back(entries[i].key,
                          colon == value.npos ? value : value.substr(std::min(colon + 2, value.size())));
  }
  return settings;
} catch (const Error&) {
  return {};
}

// Rows of what the runs say of each name: all, or where they differ.
std::string table_of(Runs runs, const std::vector<Settings>& said, bool only_differences) {
  Table table;
  if (runs.size() > 1) table.heads.emplace_back();
  for (const ReportedRun& run : runs)
    if (runs.size() > 1) table.heads.push_back(run.name);
  std::vector<std::string> names;
  for (const Settings& settings : said)
    for (const auto& [name, value] : settings)
      if (std::ranges::find(names, name) == names.end()) names.push_back(name);
  for (const std::string& name : names) {
    std::vector<std::string> row = {name};
    for (const Settings& settings : said) {
      const auto found = std::ranges::find(settings, name, &Settings::value_type::first);
      row.push_back(found == settings.end() ? "-" : found->second);
    }
    const bool same =
        std::all_of(row.begin() + 1, row.end(), [&](const std::string& value) { return value == row[1]; });
    if (!only_differences || !same) table.rows.push_back(std::move(row));
  }
  return table.rows.empty() ? "" : html_of(table);
}

std::string configurations(Runs runs) {
  if (runs.size() == 1)
    return runs[0].config.empty() ? "" : heading("Configuration") + "<pre>" + xml_text(runs[0].config) + "</pre>\n";
  std::vector<Settings> said;
  for (const ReportedRun& run : runs) said.push_back(settings_of(run.config));
  const std::string table = table_of(runs, said, true);
  return heading("Differences of configuration") + (table.empty() ? "<p>none</p>\n" : table);
}

std::string environments(Runs runs) {
  std::vector<Settings> said;
  for (const ReportedRun& run : runs) said.push_back(run.environment);
  if (std::ranges::all_of(said, [](const Settings& settings) { return settings.empty(); })) return "";
  return heading("Environment") + table_of(runs, said, false);
}

std::string title_of(Runs runs) {
  if (runs.size() == 1) return runs[0].name;
  std::string names;
  for (const ReportedRun& run : runs) names += (names.empty() ? "" : ", ") + run.name;
  return names;
}

}  // namespace

std::string report_page(Runs runs) {
  MT_CHECK(!runs.empty());
  const std::string title = xml_text(title_of(runs));
  std::string out = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>{} - mixtune</title>\n"
      "<style>{}</style>\n</head>\n<body>\n<h1>{}</h1>\n",
      title, kPageStyle, title);
  out += fmt::format("<p class=\"faint\">{}</p>\n",
                     runs.size() == 1 ? "a run of mixtune, " + where_it_stands(runs[0].records)
                                      : fmt::format("{} runs of mixtune, by their steps", runs.size()));
  if (runs.size() > 1) out += comparison(runs);
  out += summaries(runs) + warnings(runs) + notes(runs);
  out += heading("Step by step") + charts_of(runs);
  return out + configurations(runs) + environments(runs) + "</body>\n</html>\n";
}

}  // namespace mixtune
