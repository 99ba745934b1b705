#include "report/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "base/error.h"
#include "base/json.h"
#include "base/json_value.h"
#include "base/staged.h"
#include "run/output_folder.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

constexpr size_t kLargestText = 1 << 20;

std::string text_of(const std::string& folder, const char* name) {
  return read_small_file(folder + "/" + name, kLargestText, "the report goes on without it");
}

void read_config(const std::string& folder, ReportedRun& run) try {
  if (is_taken(folder + "/" + kResolvedFile)) run.config = text_of(folder, kResolvedFile);
} catch (const Error& error) {
  run.notes.emplace_back(error.what());
}

void read_environment(const std::string& folder, ReportedRun& run) try {
  if (!is_taken(folder + "/" + kEnvironmentFile)) return;
  const auto object = parse_ordered_json_object(text_of(folder, kEnvironmentFile), kEnvironmentFile,
                                                "the report goes on without it", 2);
  for (const auto& [name, value] : object.items())
    if (value.is_string() || value.is_number())
      run.environment.emplace_back(name, value.is_string() ? value.get<std::string>() : value.dump());
} catch (const Error& error) {
  run.notes.emplace_back(error.what());
}

// The folder's own name, whatever way leads there.
std::string name_of(const std::string& folder) {
  std::error_code error;
  const fs::path path = fs::weakly_canonical(folder, error);
  return printable(path.filename().empty() ? folder : path.filename().string(), 100);
}

ReportedRun read_run(const std::string& folder) {
  ReportedRun run{.name = name_of(folder), .records = RunRecords(folder + "/" + kMetricsFile)};
  if (run.records.empty())
    throw UserError(printable_path(folder), fmt::format("its {} has no record of a step", kMetricsFile),
                    "name the output folder of a run that has made one");
  read_config(folder, run);
  read_environment(folder, run);
  return run;
}

}  // namespace

std::vector<ReportedRun> read_runs(const std::vector<std::string>& folders) {
  if (folders.size() > kMostRuns)
    throw UserError("RUN", fmt::format("{} runs are more than one page shows", folders.size()),
                    fmt::format("name at most {}", kMostRuns));
  std::vector<ReportedRun> runs;
  std::map<std::string, int> times;
  for (const std::string& folder : folders) {
    runs.push_back(read_run(without_trailing_slash(folder)));
    ++times[runs.back().name];
  }
  for (size_t i = 0; i < runs.size(); ++i)
    if (times[runs[i].name] > 1) runs[i].name = printable_path(without_trailing_slash(folders[i]));
  return runs;
}

std::string write_report(const std::string& folder) {
  const std::string path = without_trailing_slash(folder) + "/" + kReportFile;
  write_whole_file(path, report_page(read_runs({folder})), Existing::kReplaced);
  return path;
}

}  // namespace mixtune
