// MaskCounter: counts the trained tokens of an indexed data set.
#pragma once

#include <cstdint>
#include <span>

#include "data/indexed_reader.h"

namespace mixtune {

class MaskCounter {
 public:
  // Reads the mask into `block`, which outlives the counter, as does `reader`. A large block serves counts in a row.
  MaskCounter(const IndexedReader& reader, std::span<uint8_t> block) : reader_(reader), block_(block) {}

  // How many of the data set's tokens [begin, begin + count) are trained.
  int64_t count(int64_t begin, int64_t count);

 private:
  void fetch(int64_t byte);

  const IndexedReader& reader_;
  std::span<uint8_t> block_;
  int64_t first_ = 0, bytes_ = 0;  // the part of the mask in the block
};

}  // namespace mixtune
