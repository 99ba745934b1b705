#include "data/joined_documents.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/random.h"

namespace mixtune {

JoinedDocuments::JoinedDocuments(std::vector<std::shared_ptr<const Documents>> parts) : parts_(std::move(parts)) {
  MT_CHECK(!parts_.empty());
  for (const auto& part : parts_) {
    begins_.push_back(totals_.documents);
    records_before_.push_back(totals_.records);
    const DocumentTotals& more = part->totals();
    totals_.documents += more.documents;
    totals_.tokens += more.tokens;
    totals_.targets += more.targets;
    totals_.records += more.records;
    totals_.weighted |= more.weighted;
    totals_.max_length = std::max(totals_.max_length, more.max_length);
  }
}

// A part without a document begins at the same number as the next: the last that begins there has it.
JoinedDocuments::FieldPlace JoinedDocuments::place(int64_t d) const {
  const auto part = static_cast<size_t>(std::ranges::upper_bound(begins_, d) - begins_.begin() - 1);
  return {*parts_[part], d - begins_[part], records_before_[part]};
}

int64_t JoinedDocuments::length(int64_t d) const {
  const FieldPlace at = place(d);
  return at.documents.length(at.d);
}

int64_t JoinedDocuments::targets(int64_t d) const {
  const FieldPlace at = place(d);
  return at.documents.targets(at.d);
}

int64_t JoinedDocuments::record(int64_t d) const {
  const FieldPlace at = place(d);
  return at.records_before + at.documents.record(at.d);
}

void JoinedDocuments::read(int64_t d, std::span<int32_t> ids, std::span<int32_t> labels) const {
  const FieldPlace at = place(d);
  at.documents.read(at.d, ids, labels);
}

void JoinedDocuments::read_weights(int64_t d, std::span<float> weights) const {
  const FieldPlace at = place(d);
  at.documents.read_weights(at.d, weights);
}

uint64_t JoinedDocuments::digest() const {
  uint64_t digest = 0;
  for (const auto& part : parts_) digest = random_bits(random_bits(digest, part->digest()), part->totals().records);
  return digest;
}

}  // namespace mixtune
