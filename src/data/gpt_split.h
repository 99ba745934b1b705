// Megatron-Core's `split`: which sequences of an indexed data set are for training, validation and test.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace mixtune {

// Sequences [begin, end).
struct SequenceRange {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const SequenceRange&) const = default;
};

struct GptSplit {
  SequenceRange train, validation, test;
  std::array<double, 3> weights;  // of these; the sum is 1
};

// "990,9,1" gives the first 99% to training, the next 0.9% to validation and the last 0.1% to test; weights that are
// left out are 0. The borders are rounded as Megatron's (blended_megatron_dataset_config.py). Throws UserError
// (`where`) for anything but one to three numbers, not below 0 and not all 0, with commas between them.
GptSplit split_sequences(std::string_view split, int64_t sequences, std::string_view where);

}  // namespace mixtune
