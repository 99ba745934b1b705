// What libraries are told before a run, so that no plan is built inside a step.
#pragma once

#include <string>

#include "kernels/attention.h"

namespace mixtune {

// The largest micro-batch to come: T, its longest document, and the most documents; and the micro-batches of a step, of
// which all but the first add their gradients.
struct BatchLimits {
  int64_t tokens, longest_document, documents;
  int64_t micro_batches = 1;
  int64_t expert_ranks = 1;  // over which experts are spread: all of their tokens may go to one expert
};

// On a GPU: builds the plans of attention (shape's documents do not matter), and makes the matrix products that follow
// choose their algorithms for every number of tokens up to the limit. Nothing on the CPU.
void begin_warm_up(Ctx& ctx, const AttentionShape& shape, DType dtype, const BatchLimits& limits);
// After one forward and backward: keeps what was chosen. A plan built from now on is counted (Gpu::late_plans).
void finish_warm_up(Ctx& ctx);

// Which kernels attention runs: "cuDNN 9.19.0", "own kernels".
std::string attention_backend(Ctx& ctx, const AttentionShape& shape, DType dtype);

}  // namespace mixtune
