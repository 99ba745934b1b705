// MaskCounter: how many tokens of an indexed data set are trained.
#pragma once

#include <cstdint>
#include <span>

#include "data/indexed_reader.h"

namespace mixtune {

class MaskCounter {
 public:
  // What is read at a time goes to `block`, which both outlive the counter: a large one where counts follow each other.
  MaskCounter(const IndexedReader& reader, std::span<uint8_t> block) : reader_(reader), block_(block) {}

  // Of the tokens [begin, begin + count) of all.
  int64_t count(int64_t begin, int64_t count);

 private:
  void fetch(int64_t byte);

  const IndexedReader& reader_;
  std::span<uint8_t> block_;
  int64_t first_ = 0, bytes_ = 0;  // in the block
};

}  // namespace mixtune
