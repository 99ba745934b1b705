#include "data/document_sink.h"

#include <algorithm>

#include "base/error.h"
#include "base/random.h"
#include "data/batch.h"

namespace mixtune {

bool DocumentSink::append(std::span<const int32_t> ids, std::span<const int32_t> labels) {
  ++totals_.records;
  begin_record();
  return append_piece(ids, labels);
}

bool DocumentSink::append_piece(std::span<const int32_t> ids, std::span<const int32_t> labels) {
  MT_CHECK(ids.size() == labels.size() && totals_.records > 0);
  int64_t targets = 0;
  for (size_t i = 1; i < ids.size(); ++i) {
    MT_CHECK(labels[i] == ids[i] || labels[i] == kIgnoreTarget);
    targets += labels[i] != kIgnoreTarget;
  }
  if (targets == 0) return false;
  add(ids, labels, targets);
  ++totals_.documents;
  totals_.tokens += static_cast<int64_t>(ids.size());
  totals_.targets += targets;
  totals_.max_length = std::max(totals_.max_length, static_cast<int64_t>(ids.size()));
  digest_ = random_bits(digest_, static_cast<uint64_t>(totals_.records));
  digest_ = random_bits(digest_, static_cast<uint64_t>(ids[0]));
  for (size_t i = 1; i < ids.size(); ++i)
    digest_ = random_bits(digest_, static_cast<uint64_t>(ids[i]) << 1 | (labels[i] != kIgnoreTarget));
  constexpr int64_t kProgress = 1 << 14;
  if (progress_ && totals_.tokens - progressed_ >= kProgress) {
    progressed_ = totals_.tokens;
    progress_(totals_);
  }
  return true;
}

uint64_t DocumentSink::digest() const {
  return random_bits(digest_, static_cast<uint64_t>(totals_.records));
}

}  // namespace mixtune
