#include "data/load_report.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"

namespace mixtune {

std::string list_names(std::span<const std::string> files) {
  const std::string first = printable(files[0], 200);
  return files.size() == 1 ? first : fmt::format("{} and {} more", first, files.size() - 1);
}

void report_loaded(const std::string& name, const DocumentTotals& found, const LoadCounts& counts,
                   int64_t max_seq_length) {
  if (found.documents == 0)
    throw UserError(name, fmt::format("data without a single target in {} records", counts.records),
                    "check the labels, and that max_seq_length leaves room for the answers");
  log_info("{}: {} records, {} documents, {} tokens, {} of them targets", name, counts.records, found.documents,
           found.tokens, found.targets);
  std::string cuts;
  const auto add = [&](int64_t count, const std::string& what) {
    if (count > 0) cuts += fmt::format("{}{} {}", cuts.empty() ? "" : ", ", count, what);
  };
  add(counts.truncated, fmt::format("longer than max_seq_length {} and truncated", max_seq_length));
  add(counts.split, fmt::format("longer than max_seq_length {} and split", max_seq_length));
  add(counts.dropped, "left without a target and dropped");
  if (!cuts.empty()) log_warning("{}: documents: {}", name, cuts);
}

}  // namespace mixtune
