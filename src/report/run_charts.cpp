#include "report/run_charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "report/chart.h"
#include "report/svg.h"

namespace mixtune {

namespace {

using Runs = std::span<const ReportedRun>;

struct Title {
  std::string_view name, title, unit = "";
};

// In the order of the page; what is not here comes after, under its name in the file.
constexpr Title kTitles[] = {{"grad_norm", "Gradient norm"},
                             {"learning_rate", "Learning rate"},
                             {"tokens_per_second", "Throughput", "tokens/s"},
                             {"model_tflops", "Model's operations on each device", "TFLOP/s"},
                             {"mfu", "Model FLOPs utilisation, of 1"},
                             {"milliseconds", "Time of a step", "ms"},
                             {"loss", "Loss, the router's included"},
                             {"aux_loss", "Router's auxiliary loss"},
                             {"expert_imbalance", "Expert imbalance"},
                             {"expert_share", "Largest part of a layer's tokens that one expert got"},
                             {"router_entropy", "Entropy of the routers, 1 where even"},
                             {"router_logit_scale", "Scale of the routers' logits"},
                             {"router_grad_norm", "Gradient norm of the routers"},
                             {"memory_gib", "Memory in use", "GiB"},
                             {"rank_memory_gib", "Memory in use by ranks", "GiB"},
                             {"tokens", "Tokens of a step"},
                             {"target_tokens", "Targets of a step"}};

const Title* title_of(std::string_view name) {
  const auto title = std::ranges::find(kTitles, name, &Title::name);
  return title == std::end(kTitles) ? nullptr : title;
}

StepRange steps_of(Runs runs) {
  StepRange range = {runs[0].records.first_step(), runs[0].records.last_step()};
  for (const ReportedRun& run : runs)
    range = {std::min(range.first, run.records.first_step()), std::max(range.last, run.records.last_step())};
  return range;
}

// The names of the numbers that any run has, without lm_loss.
std::vector<std::string> names_of(Runs runs) {
  std::vector<std::string> names;
  const auto add = [&](std::string_view name) {
    const bool some = std::ranges::any_of(
        runs, [&](const ReportedRun& run) { return run.records.find(std::string(name)) != nullptr; });
    if (some && name != "lm_loss" && std::ranges::find(names, name) == names.end()) names.emplace_back(name);
  };
  for (const Title& title : kTitles) add(title.name);
  for (const ReportedRun& run : runs)
    for (const NamedSeries& number : run.records.numbers()) add(number.name);
  return names;
}

double most_of(const Chart& chart) {
  double most = 0;
  for (const Curve& curve : chart.curves) most = std::max(most, curve.series->whole().most);
  return most;
}

void set_unit(std::string_view name, Chart& chart) {
  if (name.ends_with("_bytes")) {
    constexpr double kMiB = 1 << 20, kGiB = 1 << 30;
    const bool large = most_of(chart) >= kGiB;
    chart.unit = large ? "GiB" : "MiB";
    chart.factor = large ? kGiB : kMiB;
  } else if (name.ends_with("milliseconds")) {
    chart.unit = "ms";
  }
}

Chart chart_of(Runs runs, const std::string& name) {
  const Title* title = title_of(name);
  Chart chart{.title = title ? std::string(title->title) : name};
  for (size_t i = 0; i < runs.size(); ++i)
    if (const Series* series = runs[i].records.find(name))
      chart.curves.push_back(
          {.name = runs.size() > 1 ? runs[i].name : "", .series = series, .colour = static_cast<int>(i)});
  if (title && !title->unit.empty())
    chart.unit = title->unit;
  else
    set_unit(name, chart);
  return chart;
}

bool is_zero(const Chart& chart) {
  return std::ranges::all_of(chart.curves, [](const Curve& curve) {
    return curve.series->whole().least == 0 && curve.series->whole().most == 0;
  });
}

std::string evaluation_name(const std::string& set) {
  return set.empty() ? "evaluation" : "evaluation of " + set;
}

// Of one run the loss and its evaluations in one chart.
std::string loss_of_one(const ReportedRun& run, const StepRange& steps) {
  Chart chart{.title = "Loss"};
  if (const Series* loss = run.records.find("lm_loss")) chart.curves.push_back({.name = "lm_loss", .series = loss});
  for (const NamedSeries& evaluation : run.records.evaluations()) {
    if (evaluation.series.empty() || std::ssize(chart.curves) == kMostCurves) continue;
    const auto colour = static_cast<int>(chart.curves.size());
    chart.curves.push_back(
        {.name = evaluation_name(evaluation.name), .series = &evaluation.series, .colour = colour, .dots = true});
  }
  return chart.curves.empty() ? "" : figure(chart, steps, true);
}

Chart evaluations_of(Runs runs, const std::string& set) {
  Chart chart{.title = set.empty() ? "Loss of evaluations" : "Loss of evaluations of " + set};
  for (size_t i = 0; i < runs.size(); ++i)
    for (const NamedSeries& evaluation : runs[i].records.evaluations())
      if (evaluation.name == set && !evaluation.series.empty())
        chart.curves.push_back(
            {.name = runs[i].name, .series = &evaluation.series, .colour = static_cast<int>(i), .dots = true});
  return chart;
}

std::string losses_of_several(Runs runs, const StepRange& steps) {
  Chart loss = chart_of(runs, "lm_loss");
  loss.title = "Loss";
  std::string out = loss.curves.empty() ? "" : figure(loss, steps, true);
  std::vector<std::string> sets;
  for (const ReportedRun& run : runs)
    for (const NamedSeries& evaluation : run.records.evaluations()) {
      if (std::ranges::find(sets, evaluation.name) != sets.end()) continue;
      sets.push_back(evaluation.name);
      if (const Chart chart = evaluations_of(runs, evaluation.name); !chart.curves.empty())
        out += figure(chart, steps, false);
    }
  return out;
}

std::string shares_of(Runs runs, const StepRange& steps) {
  std::string out;
  for (const ReportedRun& run : runs) {
    Chart chart{.title = "Part of a step's time" + (runs.size() > 1 ? ": " + run.name : ""), .unit = "%"};
    for (const NamedSeries& share : run.records.shares()) {
      const auto colour = static_cast<int>(chart.curves.size());
      if (!share.series.empty())
        chart.curves.push_back({.name = share.name, .series = &share.series, .colour = colour});
    }
    if (!chart.curves.empty() && !is_zero(chart)) out += figure(chart, steps, false);
  }
  return out;
}

}  // namespace

std::string charts_of(Runs runs) {
  const StepRange steps = steps_of(runs);
  std::string out = runs.size() == 1 ? loss_of_one(runs[0], steps) : losses_of_several(runs, steps), zeros;
  out += shares_of(runs, steps);
  for (const ReportedRun& run : runs)
    if (!run.records.load().empty())
      out += run.records.load().figure("Load of experts" + (runs.size() > 1 ? ": " + run.name : ""));
  for (const ReportedRun& run : runs)
    if (!run.records.layer_load().empty())
      out += run.records.layer_load().figure("Load of experts by layer" + (runs.size() > 1 ? ": " + run.name : ""));
  for (const std::string& name : names_of(runs)) {
    const Chart chart = chart_of(runs, name);
    if (is_zero(chart))
      zeros += (zeros.empty() ? "" : ", ") + name;
    else
      out += figure(chart, steps, false);
  }
  out = "<div class=\"charts\">\n" + out + "</div>\n";
  if (!zeros.empty()) out += fmt::format("<p class=\"facts\">0 in every step: {}</p>\n", xml_text(zeros));
  return out;
}

}  // namespace mixtune
