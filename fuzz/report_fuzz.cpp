// Any texts as what a run's output folder has for its report, between lines of kNext: metrics.jsonl,
// config.resolved.yaml and environment.json. Refused with a UserError, or shown on a page that is well-formed, loads
// and runs nothing, and has no number that a browser could not place.
#include <cstdlib>
#include <fstream>
#include <string>

#include "base/error.h"
#include "base/temp_folder.h"
#include "base/test_xml.h"
#include "report/report.h"

using namespace mixtune;

namespace {

constexpr std::string_view kNext = "\n%%%\n", kKind = "<!DOCTYPE html>\n";

// Cuts off and returns what is before the next line of kNext.
std::string_view next_part(std::string_view& text) {
  const size_t end = text.find(kNext);
  const std::string_view part = text.substr(0, end);
  text.remove_prefix(end == text.npos ? text.size() : end + kNext.size());
  return part;
}

void check_records(const RunRecords& records) {
  if (records.first_step() < 0 || records.last_step() < records.first_step()) abort();
  if (records.numbers().size() > RunRecords::kMostNames) abort();
  for (const NamedSeries& number : records.numbers())
    if (number.series.whole().count + number.series.whole().holes > records.steps()) abort();
}

// A quotation mark in a tag begins or ends a value, as those of texts are escaped.
void check_page(const std::string& page) {
  if (!page.starts_with(kKind)) abort();
  for (const std::string& tag : tags_of_xml(page.substr(kKind.size()))) {
    if (tag.starts_with("<script")) abort();
    for (const char* none : {"href=\"", "src=\"", "onload=\"", "\"nan", "\"inf", "\"-nan", "\"-inf"})
      if (tag.find(none) != tag.npos) abort();
    const size_t path = tag.find(" d=\"");
    for (const char* none : {"nan", "inf"})
      if (path != tag.npos && tag.find(none, path) != tag.npos) abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const TempFolder folder("fuzz");
  std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const char* name : {"metrics.jsonl", "config.resolved.yaml", "environment.json"})
    std::ofstream(folder / name) << next_part(text);
  try {
    const std::vector<ReportedRun> runs = read_runs({folder.path()});
    check_records(runs[0].records);
    check_page(report_page(runs));
  } catch (const UserError&) {
  }
  return 0;
}
