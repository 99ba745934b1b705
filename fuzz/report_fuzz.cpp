// Any texts as what a run's output folder has for its report, between lines of kNext: metrics.jsonl,
// config.resolved.yaml and environment.json. Refused with a UserError, or shown on a page that is well-formed, loads
// and runs nothing, and has no number that a browser could not place.
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <initializer_list>
#include <string>
#include <string_view>

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

bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Values may hold any text of the run: a series may be called "nan", or end in "onload=".
void check_page(const std::string& page) {
  if (!page.starts_with(kKind)) abort();
  for (const std::string& tag : tags_of_xml(page.substr(kKind.size()))) {
    if (tag.starts_with("<script")) abort();
    for (const XmlAttribute& attribute : attributes_of_tag(tag)) {
      if (attribute.name.starts_with("on") || is_one_of(attribute.name, {"href", "xlink:href", "src"})) abort();
      if (is_one_of(attribute.name, {"aria-label", "class", "content"})) continue;
      for (const char* no_number : {"nan", "inf"})
        if (attribute.value.find(no_number) != std::string::npos) abort();
    }
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
