#include "data/validation_split.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "data/documents_part.h"

namespace mixtune {

namespace {

constexpr const char* kKey = "validation_split_percentage";

// The `count` of the records that come first in the order of a hash, and of their numbers where hashes are equal. They
// are found by the upper bits of their hashes, so that only the records of one value of these need be sorted.
DocumentSet choose_records(int64_t records, int64_t count, uint64_t seed) {
  constexpr int kBits = 16;
  const uint64_t key = random_key(seed, "validation split");
  const auto bits = [&](int64_t r) {
    return random_bits(key, static_cast<uint64_t>(r));
  };
  std::vector<int64_t> with_bits(1 << kBits);
  for (int64_t r = 0; r < records; ++r) ++with_bits[bits(r) >> (64 - kBits)];
  uint64_t last = 0;
  int64_t left = count;
  for (; with_bits[last] < left; ++last) left -= with_bits[last];

  DocumentSet chosen(records);
  std::vector<std::pair<uint64_t, int64_t>> order;
  for (int64_t r = 0; r < records; ++r) {
    const uint64_t upper = bits(r) >> (64 - kBits);
    if (upper < last) chosen.insert(r);
    if (upper == last) order.emplace_back(bits(r), r);
  }
  std::ranges::sort(order);
  for (int64_t i = 0; i < left; ++i) chosen.insert(order[i].second);
  return chosen;
}

// Targets are counted of the smaller part alone, where that means to read.
Split split_by_records(const std::shared_ptr<const Documents>& all, const DocumentSet& held_out) {
  DocumentSet train(all->size()), validation(all->size());
  DocumentTotals of_train = all->totals(), of_validation{.records = all->records()};
  of_train.max_length = 0;
  for (int64_t d = 0; d < all->size(); ++d) {
    const bool validates = held_out.contains(all->record(d));
    (validates ? validation : train).insert(d);
    int64_t& longest = validates ? of_validation.max_length : of_train.max_length;
    longest = std::max(longest, all->length(d));
    if (!validates) continue;
    ++of_validation.documents;
    of_validation.tokens += all->length(d);
    of_validation.targets += all->targets(d);
  }
  of_train.documents -= of_validation.documents;
  of_train.tokens -= of_validation.tokens;
  of_train.targets -= of_validation.targets;
  return {std::make_shared<DocumentsPart>(all, std::move(train), of_train),
          std::make_shared<DocumentsPart>(all, std::move(validation), of_validation)};
}

}  // namespace

Split split_validation(std::shared_ptr<const Documents> all, double percentage, uint64_t seed) {
  MT_CHECK(percentage > 0);
  const int64_t records = all->records();
  const double share = static_cast<double>(records) * std::min(percentage, 100.0) / 100;
  const int64_t count = std::max<int64_t>(1, std::llround(share));
  if (count >= records)
    throw UserError(kKey, fmt::format("{}% of {} records leaves none to train on", percentage, records),
                    "lower it, or set validation_file");

  const Split split = split_by_records(all, choose_records(records, count, seed));
  const auto check = [&](const Documents& part, int64_t of_part, const char* what) {
    if (part.size() == 0)
      throw UserError(kKey, fmt::format("the {} records {} of {} have no target", of_part, what, records),
                      "change it or the seed, or set validation_file");
  };
  check(*split.validation, count, "held out");
  check(*split.train, records - count, "left to train on");
  return split;
}

}  // namespace mixtune
