// BitSet: a set of numbers below a limit, in 1.125 bits for each number below it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mixtune {

class BitSet {
 public:
  explicit BitSet(int64_t size = 0) : words_(static_cast<size_t>(size + 63) / 64) {}

  void insert(int64_t i) { words_[static_cast<size_t>(i / 64)] |= uint64_t{1} << (i % 64); }
  void remove(int64_t i) { words_[static_cast<size_t>(i / 64)] &= ~(uint64_t{1} << (i % 64)); }
  bool contains(int64_t i) const { return words_[static_cast<size_t>(i / 64)] >> (i % 64) & 1; }
  void index();                     // called after the last insert, before select
  int64_t select(int64_t n) const;  // the n-th number in the set, counted from 0
  uint64_t digest() const;

 private:
  static constexpr size_t kBlock = 8;  // words
  std::vector<uint64_t> words_;
  std::vector<int64_t> before_;  // the numbers in the set before each block
};

}  // namespace mixtune
