#include "data/tokenized_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

#include "data/closed_keys.h"
#include "data/label.h"

namespace mixtune {

namespace {

constexpr std::array<std::string_view, 9> kKeys = {"input_ids",       "labels",      "attention_mask",
                                                   "completion_mask", "loss_mask",   "assistant_masks",
                                                   "position_ids",    "seq_lengths", "continues_record"};

constexpr std::string_view kLossMask = "loss_mask";  // may hold weights
constexpr std::array<std::string_view, 2> kMasks = {"completion_mask", "assistant_masks"};

constexpr std::string_view kDocuments = "tells documents apart in a way that is not read";
constexpr std::string_view kDocumentsMend = "give position_ids or seq_lengths";
constexpr std::array kRefusedInRecord = {
    RefusedKey{"cu_seqlens", kDocuments, kDocumentsMend},     RefusedKey{"cu_seq_lens", kDocuments, kDocumentsMend},
    RefusedKey{"cu_seq_lens_q", kDocuments, kDocumentsMend},  RefusedKey{"seq_lens", kDocuments, kDocumentsMend},
    RefusedKey{"sequence_id", kDocuments, kDocumentsMend},    RefusedKey{"sequence_ids", kDocuments, kDocumentsMend},
    RefusedKey{"segment_ids", kDocuments, kDocumentsMend},    RefusedKey{"doc_ids", kDocuments, kDocumentsMend},
    RefusedKey{"document_ids", kDocuments, kDocumentsMend},   RefusedKey{"seq_idx", kDocuments, kDocumentsMend},
    RefusedKey{"packing_params", kDocuments, kDocumentsMend}, RefusedKey{"inputs_embeds", "is not read", "remove it"},
};

using Integers = std::vector<int32_t>;
using Lengths = std::vector<size_t>;  // of documents, in their order

void check_size(const Fields& record, std::string_view key, size_t size, size_t ids) {
  if (size != ids)
    record.place().fail(fmt::format("'{}' has {} entries for {} input_ids", key, size, ids),
                        "give one for each token, or remove it");
}

Integers integers_for(const Fields& record, std::string_view key, size_t ids) {
  Integers values = record.integers(key);
  check_size(record, key, values.size(), ids);
  return values;
}

void read_labels(TokenSequence& row, const Fields& record) {
  row.labels = row.ids;
  if (record.has("labels")) row.labels = integers_for(record, "labels", row.ids.size());
  for (size_t i = 0; i < row.ids.size(); ++i)
    if (row.labels[i] != row.ids[i] && row.labels[i] != kIgnoreTarget)
      record.place().fail(fmt::format("labels[{}] is {}, and input_ids[{}] is {}", i, row.labels[i], i, row.ids[i]),
                          "labels are not shifted: give each token its own id, or -100 where it is not trained");
  for (const std::string_view key : kMasks) {
    if (!record.has(key)) continue;
    const std::vector<bool> mask = record.flags(key);
    check_size(record, key, mask.size(), row.ids.size());
    for (size_t i = 0; i < mask.size(); ++i)
      if (!mask[i]) row.labels[i] = kIgnoreTarget;
  }
  if (!record.has(kLossMask)) return;
  row.weights = record.weights(kLossMask);
  check_size(record, kLossMask, row.weights.size(), row.ids.size());
  for (size_t i = 0; i < row.weights.size(); ++i)
    if (row.weights[i] == 0) row.labels[i] = kIgnoreTarget;
}

// The tokens [begin, end) of a row, without the padding around them.
struct Range {
  size_t begin = 0, end = 0;
};

Range without_padding(const Integers& mask, const TokenSequence& row, const Fields& record) {
  const auto seen = [](int32_t value) {
    return value != 0;
  };
  const auto first = std::ranges::find_if(mask, seen);
  const auto last = std::find_if(mask.rbegin(), std::make_reverse_iterator(first), seen).base();
  const Range kept{static_cast<size_t>(first - mask.begin()), static_cast<size_t>(last - mask.begin())};
  const bool says_what_is_trained = record.has("labels") || record.has(kLossMask) ||
                                    std::ranges::any_of(kMasks, [&](std::string_view key) { return record.has(key); });
  for (size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] < 0) record.fail("attention_mask", fmt::format("holds {} (entry {}), not 0 or 1", mask[i], i));
    if (mask[i] != 0) continue;
    if (i >= kept.begin && i < kept.end)
      record.fail("attention_mask", fmt::format("has a 0 (entry {}) between tokens that are seen", i));
    if (says_what_is_trained && row.labels[i] != kIgnoreTarget)
      record.place().fail(fmt::format("entry {} is trained, but 'attention_mask' is 0 there", i),
                          "give padding the label -100");
  }
  return kept;
}

// The lengths of the documents that begin where `begins` says.
template <class Begins>
Lengths lengths_between(size_t tokens, Begins begins) {
  Lengths lengths;
  for (size_t i = 0; i < tokens; ++i) {
    if (i == 0 || begins(i)) lengths.push_back(0);
    ++lengths.back();
  }
  return lengths;
}

// The lengths of runs 0, 1, 2, ...
Lengths lengths_of_positions(std::span<const int32_t> positions, const Fields& record) {
  for (size_t i = 0; i < positions.size(); ++i)
    if (positions[i] != 0 && (i == 0 || positions[i] != positions[i - 1] + 1))
      record.place().fail(fmt::format("position_ids[{}] is {}", i, positions[i]),
                          "positions are runs 0, 1, 2, ..., one for each document of the row");
  return lengths_between(positions.size(), [&](size_t i) { return positions[i] == 0; });
}

// The lengths by a mask that numbers its documents 1, 2, 3, ...; none where all are 1.
Lengths lengths_of_mask(std::span<const int32_t> mask, const Fields& record) {
  for (size_t i = 0; i < mask.size(); ++i)
    if (mask[i] != (i == 0 ? 1 : mask[i - 1]) && (i == 0 || mask[i] != mask[i - 1] + 1))
      record.fail("attention_mask",
                  fmt::format("holds {} (entry {}): documents are numbered 1, 2, 3, ...", mask[i], i));
  if (mask.empty() || mask.back() == 1) return {};
  return lengths_between(mask.size(), [&](size_t i) { return mask[i] != mask[i - 1]; });
}

Lengths stated_lengths(size_t tokens, const Fields& record) {
  Lengths lengths;
  size_t sum = 0;
  for (const int32_t length : record.integers("seq_lengths")) {
    if (length < 1) record.fail("seq_lengths", fmt::format("holds {}, not a length", length));
    lengths.push_back(static_cast<size_t>(length));
    sum += lengths.back();
  }
  if (sum != tokens)
    record.place().fail(fmt::format("'seq_lengths' are of {} tokens, where there are {}", sum, tokens),
                        "give the length of each document of the row");
  return lengths;
}

// Takes over `more`, the lengths that `key` tells, if it tells any. They must agree with earlier ones.
void agree(Lengths& lengths, std::string_view& teller, Lengths more, std::string_view key, const FieldPlace& place) {
  if (more.empty()) return;
  if (!lengths.empty() && lengths != more)
    place.fail(fmt::format("'{}' and '{}' tell documents apart differently", teller, key), "remove the wrong one");
  lengths = std::move(more);
  teller = key;
}

// Drops tokens at a row's end that are documents by themselves and not trained: padding without an attention_mask.
void drop_trailing_padding(TokenizedRecord& documents) {
  const auto is_padding = [](const TokenSequence& document) {
    return document.ids.size() == 1 && document.labels[0] == kIgnoreTarget;
  };
  while (documents.size() > 1 && is_padding(documents.back())) documents.pop_back();
}

TokenizedRecord cut(const TokenSequence& row, size_t begin, const Lengths& lengths) {
  TokenizedRecord documents;
  for (const size_t length : lengths) {
    const auto at = static_cast<std::ptrdiff_t>(begin), end = static_cast<std::ptrdiff_t>(begin + length);
    documents.push_back({.ids = {row.ids.begin() + at, row.ids.begin() + end},
                         .labels = {row.labels.begin() + at, row.labels.begin() + end},
                         .weights = row.weights.empty()
                                        ? std::vector<float>()
                                        : std::vector<float>(row.weights.begin() + at, row.weights.begin() + end),
                         .continues = row.continues || !documents.empty()});
    begin += length;
  }
  drop_trailing_padding(documents);
  return documents;
}

}  // namespace

TokenizedRecord parse_tokenized(const Fields& record, UnreadKeys& unread) {
  check_keys(record, kKeys, kRefusedInRecord, "", unread);
  TokenSequence row;
  row.ids = record.integers("input_ids");
  row.continues = record.has("continues_record") && record.flag("continues_record");
  read_labels(row, record);

  Range kept{0, row.ids.size()};
  Integers mask;
  if (record.has("attention_mask")) {
    mask = integers_for(record, "attention_mask", row.ids.size());
    kept = without_padding(mask, row, record);
  }
  const size_t tokens = kept.end - kept.begin;
  Lengths lengths;
  std::string_view teller;
  if (!mask.empty())
    agree(lengths, teller, lengths_of_mask(std::span(mask).subspan(kept.begin, tokens), record), "attention_mask",
          record.place());
  if (record.has("position_ids")) {
    const Integers positions = integers_for(record, "position_ids", row.ids.size());
    agree(lengths, teller, lengths_of_positions(std::span(positions).subspan(kept.begin, tokens), record),
          "position_ids", record.place());
  }
  if (record.has("seq_lengths")) agree(lengths, teller, stated_lengths(tokens, record), "seq_lengths", record.place());
  if (lengths.size() < 2) {
    if (tokens == row.ids.size()) return {std::move(row)};
    lengths = {tokens};
  }
  return cut(row, kept.begin, lengths);
}

}  // namespace mixtune
