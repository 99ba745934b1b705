// State::replica_differences: whether the ranks that hold the same weights hold the same bits.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/digest.h"
#include "parallel/ranks.h"
#include "state/state_parts.h"

namespace mixtune {

namespace {

// A holder's report: its rank among all ranks, and the digest of each tensor.
using Report = std::vector<int64_t>;

Report report_of(Ctx& ctx, const std::vector<Tensor>& tensors, int rank) {
  Report report = read_digests(ctx, tensors);
  report.insert(report.begin(), rank);
  return report;
}

std::vector<Report> all_reports(Ctx& ctx, Communicator& holders, const Report& own) {
  std::string bytes(own.size() * sizeof(int64_t), '\0');
  std::memcpy(bytes.data(), own.data(), bytes.size());
  std::vector<Report> reports;
  for (const std::string& text : gather_texts(ctx, holders, "digests of weights", bytes)) {
    MT_CHECK(text.size() == bytes.size());
    std::memcpy(reports.emplace_back(own.size()).data(), text.data(), text.size());
  }
  return reports;
}

bool same(const Report& a, const Report& b) {
  return std::equal(a.begin() + 1, a.end(), b.begin() + 1);
}

// The first report that most of the others agree with.
const Report& most_common(const std::vector<Report>& reports) {
  return *std::ranges::max_element(reports, {}, [&](const Report& report) {
    return std::ranges::count_if(reports, [&](const Report& other) { return same(report, other); });
  });
}

std::string describe(const std::vector<Report>& reports, const std::vector<std::string>& names) {
  constexpr size_t kShown = 3;
  const Report& expected = most_common(reports);
  std::vector<int64_t> ranks;
  std::vector<std::string> differ;
  for (const Report& report : reports)
    if (!same(report, expected)) ranks.push_back(report[0]);
  for (size_t t = 0; t < names.size(); ++t)
    if (std::ranges::any_of(reports, [&](const Report& report) { return report[t + 1] != expected[t + 1]; }))
      differ.push_back(names[t]);
  if (ranks.empty()) return "";
  const size_t shown = std::min(differ.size(), kShown);
  return fmt::format("{} {} not hold the bits that rank {} holds of {}{}", ranks.size() == 1 ? "rank" : "ranks",
                     fmt::format("{} {}", fmt::join(ranks, ", "), ranks.size() == 1 ? "does" : "do"), expected[0],
                     fmt::join(differ.begin(), differ.begin() + static_cast<std::ptrdiff_t>(shown), ", "),
                     differ.size() > shown ? fmt::format(" and {} more", differ.size() - shown) : "");
}

}  // namespace

std::string State::replica_differences(Ctx& ctx, int rank) const {
  Communicator &dense = parts_->holders.dense(), &experts = parts_->holders.experts();
  const std::string found = replica_differences(ctx, dense, rank);
  if (&experts == &dense) return found;
  const std::string of_experts = replica_differences(ctx, experts, rank);
  return found.empty() ? of_experts : found;
}

std::string State::replica_differences(Ctx& ctx, Communicator& holders, int rank) const {
  std::vector<Tensor> tensors;
  std::vector<std::string> names;
  for (int p = 0; p < size(); ++p) {
    if (&parts_->holders.of(layout().buckets()[layout().bucket_of(p)]) != &holders || holders.size() == 1) continue;
    if (is_coded(p)) continue;  // made of the same files on each rank
    tensors.push_back(weight(p));
    names.push_back(spec(p).name);
    if (layout().sharded() || !master(p)) continue;
    tensors.push_back(master(p));
    names.push_back(spec(p).name + " (master)");
  }
  if (tensors.empty()) return "";
  return describe(all_reports(ctx, holders, report_of(ctx, tensors, rank)), names);
}

}  // namespace mixtune
