// The report of a run, or of several side by side: one page of HTML that needs nothing but itself.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "report/run_records.h"

namespace mixtune {

// What a run's output folder says of it. Any of it may be anybody's text.
struct ReportedRun {
  std::string name;
  RunRecords records;
  std::string config = {};  // of config.resolved.yaml; "" where there is none
  std::vector<std::pair<std::string, std::string>> environment = {};
  std::vector<std::string> notes = {};  // on what could not be read
};

constexpr size_t kMostRuns = 12;

// Reads output folders. Throws UserError where one holds no records, or there are more than kMostRuns.
std::vector<ReportedRun> read_runs(const std::vector<std::string>& folders);

// The page: well-formed XML after its first line. The same folders give the same bytes.
std::string report_page(std::span<const ReportedRun> runs);

// Makes or replaces the folder's report.html, and returns its path. Throws UserError as read_runs does, and Error or
// UserError where it cannot be written.
std::string write_report(const std::string& folder);

}  // namespace mixtune
