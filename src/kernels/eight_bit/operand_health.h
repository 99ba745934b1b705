// operand_health: what 8-bit arithmetic loses of a matrix product's operand.
#pragma once

#include "kernels/eight_bit/round_operand.h"

namespace mixtune {

// The numbers of a tally.
enum HealthNumber : int {
  kHealthValues,     // that are not 0
  kHealthFlushed,    // of these, what is rounded to 0
  kHealthSaturated,  // of these, what no code stands for: beyond the format's largest value, infinite or NaN
  kHealthAmax,       // the largest finite magnitude: its bits as an fp32 number, which order as magnitudes do
  kHealthNumbers
};

// Adds to tally [kHealthNumbers] int64 what round_operand would lose of x [R, C] or [E, R, C] with the same bits. Rows
// from `live` on, of [R, C], count nowhere. The same numbers in any order: sums are of integers.
struct OperandHealth {
  Tensor x;
  EightBits bits;
  int64_t live;
  Tensor tally;
};
void operand_health(Ctx& ctx, const OperandHealth& args);

}  // namespace mixtune
