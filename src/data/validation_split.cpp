#include "data/validation_split.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/random.h"

namespace mixtune {

namespace {

constexpr const char* kKey = "validation_split_percentage";

// `count` of the records, by the order of a hash.
std::vector<bool> choose_records(int64_t records, int64_t count, uint64_t seed) {
  const uint64_t key = random_key(seed, "validation split");
  std::vector<std::pair<uint64_t, int64_t>> order(records);
  for (int64_t r = 0; r < records; ++r) order[r] = {random_bits(key, r), r};
  std::ranges::nth_element(order, order.begin() + count);
  std::vector<bool> chosen(records);
  for (int64_t i = 0; i < count; ++i) chosen[order[i].second] = true;
  return chosen;
}

}  // namespace

Split split_validation(const Documents& all, double percentage, uint64_t seed) {
  MT_CHECK(percentage > 0);
  const double share = static_cast<double>(all.records()) * std::min(percentage, 100.0) / 100;
  const int64_t count = std::max<int64_t>(1, std::llround(share));
  if (count >= all.records())
    throw UserError(kKey, fmt::format("{}% of {} records leaves none to train on", percentage, all.records()),
                    "lower it, or set validation_file");

  const std::vector<bool> chosen = choose_records(all.records(), count, seed);
  Split split;
  for (int64_t d = 0; d < all.size(); ++d) {
    Documents& part = chosen[all.record(d)] ? split.validation : split.train;
    const bool continues = d > 0 && all.record(d) == all.record(d - 1);
    if (continues)
      part.append_piece(all.ids(d), all.labels(d));
    else
      part.append(all.ids(d), all.labels(d));
  }
  const auto check = [&](const Documents& part, int64_t records, const char* what) {
    if (part.size() == 0)
      throw UserError(kKey, fmt::format("the {} records {} of {} have no target", records, what, all.records()),
                      "change it or the seed, or set validation_file");
  };
  check(split.validation, count, "held out");
  check(split.train, all.records() - count, "left to train on");
  return split;
}

}  // namespace mixtune
