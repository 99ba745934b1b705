#include "data/bit_set.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "base/random.h"

namespace mixtune {

void BitSet::index() {
  before_.clear();
  int64_t count = 0;
  for (size_t word = 0; word < words_.size(); ++word) {
    if (word % kBlock == 0) before_.push_back(count);
    count += std::popcount(words_[word]);
  }
}

int64_t BitSet::select(int64_t n) const {
  const auto block = std::ranges::upper_bound(before_, n) - before_.begin() - 1;
  int64_t left = n - before_[static_cast<size_t>(block)];
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

uint64_t BitSet::digest() const {
  uint64_t digest = 0;
  for (const uint64_t word : words_) digest = random_bits(digest, word);
  return digest;
}

}  // namespace mixtune
