#include "data/document_sink.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "base/random.h"
#include "data/batch.h"
#include "data/label.h"
#include "data/weights.h"

namespace mixtune {

bool DocumentSink::append(std::span<const int32_t> ids, std::span<const int32_t> labels,
                          std::span<const float> weights) {
  ++totals_.records;
  begin_record();
  return append_piece(ids, labels, weights);
}

bool DocumentSink::append_piece(std::span<const int32_t> ids, std::span<const int32_t> labels,
                                std::span<const float> weights) {
  MT_CHECK(ids.size() == labels.size() && totals_.records > 0);
  MT_CHECK(weights.empty() || weights.size() == ids.size());
  int64_t targets = 0;
  bool weighted = false;
  for (size_t i = 1; i < ids.size(); ++i) {
    MT_CHECK(labels[i] == ids[i] || labels[i] == kIgnoreTarget);
    if (labels[i] == kIgnoreTarget) continue;
    ++targets;
    if (weights.empty()) continue;
    MT_CHECK(is_weight(weights[i]));
    weighted |= weights[i] != 1;
  }
  if (targets == 0) return false;
  if (!weighted) weights = {};
  add({ids, labels, weights, targets});
  totals_.weighted |= weighted;
  ++totals_.documents;
  totals_.tokens += static_cast<int64_t>(ids.size());
  totals_.targets += targets;
  totals_.max_length = std::max(totals_.max_length, static_cast<int64_t>(ids.size()));
  digest_ = random_bits(digest_, static_cast<uint64_t>(totals_.records));
  digest_ = random_bits(digest_, static_cast<uint64_t>(ids[0]));
  for (size_t i = 1; i < ids.size(); ++i)
    digest_ = add_token(digest_, {ids[i], labels[i], weights.empty() ? 1 : weights[i]});
  constexpr int64_t kProgress = 1 << 14;
  if (progress_ && totals_.tokens - progressed_ >= kProgress) {
    progressed_ = totals_.tokens;
    progress_(totals_);
  }
  return true;
}

uint64_t add_token(uint64_t digest, const LabelledToken& token) {
  const auto [id, label, weight] = token;
  const bool trained = label != kIgnoreTarget;
  digest = random_bits(digest, static_cast<uint64_t>(id) << 1 | trained);
  return trained && weight != 1 ? random_bits(digest, std::bit_cast<uint32_t>(weight)) : digest;
}

uint64_t DocumentSink::digest() const {
  return random_bits(digest_, static_cast<uint64_t>(totals_.records));
}

}  // namespace mixtune
