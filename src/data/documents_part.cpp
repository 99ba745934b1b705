#include "data/documents_part.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/error.h"
#include "base/random.h"

namespace mixtune {

void DocumentSet::index() {
  before_.clear();
  int64_t count = 0;
  for (size_t word = 0; word < words_.size(); ++word) {
    if (word % kBlock == 0) before_.push_back(count);
    count += std::popcount(words_[word]);
  }
}

int64_t DocumentSet::select(int64_t i) const {
  const auto block = std::ranges::upper_bound(before_, i) - before_.begin() - 1;
  int64_t left = i - before_[static_cast<size_t>(block)];
  for (size_t word = static_cast<size_t>(block) * kBlock;; ++word) {
    MT_CHECK(word < words_.size());
    uint64_t bits = words_[word];
    if (const int here = std::popcount(bits); here <= left) {
      left -= here;
      continue;
    }
    for (; left > 0; --left) bits &= bits - 1;
    return static_cast<int64_t>(word) * 64 + std::countr_zero(bits);
  }
}

uint64_t DocumentSet::digest() const {
  uint64_t digest = 0;
  for (const uint64_t word : words_) digest = random_bits(digest, word);
  return digest;
}

DocumentsPart::DocumentsPart(std::shared_ptr<const Documents> all, DocumentSet set, const DocumentTotals& totals)
    : all_(std::move(all)), set_(std::move(set)), totals_(totals) {
  set_.index();
}

uint64_t DocumentsPart::digest() const {
  return random_bits(all_->digest(), set_.digest());
}

}  // namespace mixtune
