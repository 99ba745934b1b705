// StoredValues: a tensor's elements in a file, and how its bytes become values of a type of weights.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "checkpoint/read_in_turn.h"
#include "checkpoint/safetensors.h"

namespace mixtune {

struct StoredValues {
  const SafetensorsFile* file;
  uint64_t begin;  // byte, of the first element; in 4 bits, of the first element of the whole tensor in the file
  DType dtype;     // of the values (is_weight_dtype)
  const FourBitTensor* four_bit = nullptr;  // that the elements are codes of; null: they are their values
  int64_t first = 0;                        // in 4 bits: the first element, in the whole tensor

  // The byte of an element that is its value.
  uint64_t byte(int64_t place) const;
  // The bytes to read for elements [place, place + count).
  FileStretch stretch(int64_t place, int64_t count) const;
  // How many elements to read at once: their values have up to `most` bytes.
  int64_t at_once(uint64_t most = kMostInTurn) const { return static_cast<int64_t>(most / dtype_size(dtype)); }
  // The values of these elements, in `dtype`: `bytes`, those of their stretch, or `buffer` made of them.
  std::span<const std::byte> values(int64_t place, int64_t count, std::span<const std::byte> bytes,
                                    std::vector<std::byte>& buffer) const;
};

}  // namespace mixtune
