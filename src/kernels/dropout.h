// Dropout (Srivastava et al. 2014) of rows in training. Which elements are dropped is a hash of a key, the number of
// their row and their column: it depends on no layout, and is computed again wherever it is needed.
#pragma once

#include "base/random.h"
#include "tensor/ctx.h"

namespace mixtune {

struct Dropout {
  double share = 0;  // of the elements, that are dropped; in [0, 1), 0: none
  uint64_t key = 0;
  int64_t first = 0;    // row i has the number first + i
  Tensor numbers = {};  // or its own, [T] int64

  explicit operator bool() const { return share > 0; }
  // That of some of the rows.
  Dropout slice(int64_t begin, int64_t rows) const {
    return {
        .share = share, .key = key, .first = first + begin, .numbers = numbers ? numbers.slice(begin, rows) : Tensor{}};
  }
  // What the elements that are left are to be multiplied by.
  double factor() const { return 1 / (1 - share); }
};

// y [T, K] = the elements of x that are left, as they are, and 0 for the others. y may be x.
struct DropOut {
  Tensor x, y;
  const Dropout& dropout;
};
void drop_out(Ctx& ctx, const DropOut& args);

// The same on every device. element: row number * K + column. An element's bits are half of a hash, which it shares
// with its neighbour.
constexpr uint32_t drop_threshold(double share) {
  return static_cast<uint32_t>(share * 0x1p32);
}
constexpr bool is_dropped(uint64_t mixed_key, uint64_t element, uint32_t threshold) {
  return static_cast<uint32_t>(mixed_bits(mixed_key, element >> 1) >> (32 * (element & 1))) < threshold;
}

}  // namespace mixtune
