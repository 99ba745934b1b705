// The arithmetic of digest.h on one word, which both halves share.
#pragma once

#include "base/random.h"

namespace mixtune {

constexpr uint64_t mixed_word(uint32_t word, int64_t index) {
  return mix_bits(word + (static_cast<uint64_t>(index) + 1) * 0x9E3779B97F4A7C15ull);
}

}  // namespace mixtune
