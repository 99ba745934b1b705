#include "data/validation_split.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "data/documents_part.h"
#include "data/gpt_split.h"

namespace mixtune {

namespace {

constexpr const char* kKey = "validation_split_percentage";

struct Chosen {
  int64_t count, of;
};

// The records, `count` of so many, that come first in the order of a hash, and of their numbers where hashes are equal.
// The upper bits of the hashes find them, so that only the records of one value of these need be sorted.
BitSet choose_records(const Chosen& chosen_of, uint64_t seed) {
  const auto [count, records] = chosen_of;
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

  BitSet chosen(records);
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

enum Subset { kTrain, kValidation, kTest, kParts };

// Counts the targets of all parts but training, where counting means reading: these are the smaller ones.
template <class PartOf>
std::array<std::shared_ptr<const Documents>, kParts> split_by_records(const std::shared_ptr<const Documents>& all,
                                                                      const PartOf& part_of) {
  std::array<BitSet, kParts> sets = {BitSet(all->size()), BitSet(all->size()), BitSet(all->size())};
  std::array<DocumentTotals, kParts> totals = {all->totals()};
  totals[kTrain].max_length = 0;
  for (int64_t d = 0; d < all->size(); ++d) {
    const Subset part = part_of(all->record(d));
    sets[part].insert(d);
    DocumentTotals& own = totals[part];
    own.max_length = std::max(own.max_length, all->length(d));
    if (part == kTrain) continue;
    ++own.documents;
    own.tokens += all->length(d);
    own.targets += all->targets(d);
  }
  for (const Subset part : {kValidation, kTest}) {
    totals[kTrain].documents -= totals[part].documents;
    totals[kTrain].tokens -= totals[part].tokens;
    totals[kTrain].targets -= totals[part].targets;
    totals[part].records = all->records();
    totals[part].weighted = all->totals().weighted;
  }
  std::array<std::shared_ptr<const Documents>, kParts> parts;
  for (const Subset part : {kTrain, kValidation, kTest})
    parts[part] = std::make_shared<DocumentsPart>(all, std::move(sets[part]), totals[part]);
  return parts;
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

  const BitSet held_out = choose_records({.count = count, .of = records}, seed);
  const auto parts = split_by_records(all, [&](int64_t r) { return held_out.contains(r) ? kValidation : kTrain; });
  const auto check = [&](const Documents& part, int64_t of_part, const char* what) {
    if (part.size() == 0)
      throw UserError(kKey, fmt::format("the {} records {} of {} have no target", of_part, what, records),
                      "change it or the seed, or set validation_file");
  };
  check(*parts[kValidation], count, "held out");
  check(*parts[kTrain], records - count, "left to train on");
  return {parts[kTrain], parts[kValidation]};
}

Split split_records(std::shared_ptr<const Documents> all, const std::string& split, const std::string& where,
                    const std::string& name) {
  const GptSplit ranges = split_sequences(split, all->records(), where);
  const auto parts = split_by_records(all, [&](int64_t record) {
    const auto is_in = [&](const SequenceRange& range) {
      return record >= range.begin && record < range.end;
    };
    return is_in(ranges.train) ? kTrain : is_in(ranges.validation) ? kValidation : kTest;
  });
  const auto part = [&](Subset which, const SequenceRange& range,
                        const char* what) -> std::shared_ptr<const Documents> {
    if (ranges.weights[which] == 0) return nullptr;
    if (parts[which]->size() == 0)
      throw UserError(where,
                      fmt::format("'{}' gives {} {} of the {} records of {}, without a target", split, what,
                                  range.size(), all->records(), name),
                      "change the weights, or set that one to 0");
    return parts[which];
  };
  const Split found = {part(kTrain, ranges.train, "training"), part(kValidation, ranges.validation, "validation")};
  log_info("{}: split {}: {} records to train on, {} for validation, {} for a test, which a run leaves alone", name,
           split, ranges.train.size(), ranges.validation.size(), ranges.test.size());
  return found;
}

}  // namespace mixtune
