// fill_normal: random contents.
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

// tensor[i] = mean + deviation * random_normal(key, first + i), in fp32 or bf16 (fp64 on the CPU). A GPU computes the
// normal in fp32: it is off the CPU's by a few epsilons of the largest.
struct FillNormal {
  Tensor tensor;
  uint64_t key;
  int64_t first = 0;
  double mean = 0, deviation = 1;
};
void fill_normal(Ctx& ctx, const FillNormal& args);

}  // namespace mixtune
