// Warm-up: tells libraries before a run what will come, so that no plan is built inside a step.
#pragma once

#include <string>

#include "kernels/attention/attention.h"

namespace mixtune {

// The largest micro-batch to come: T, its longest document, and the most documents. And the micro-batches of a step:
// all but the first add their gradients.
struct BatchLimits {
  int64_t tokens, longest_document, documents;
  int64_t micro_batches = 1;
  int64_t expert_ranks = 1;  // ranks that share the experts: all of their tokens may go to one expert
  bool weighted = false;     // targets have weights
};

// Builds a GPU's plans of attention (shape's documents do not matter), and makes the matrix products that follow choose
// their algorithms for every number of tokens up to the limit. On the CPU does nothing.
void begin_warm_up(Ctx& ctx, const AttentionShape& shape, DType dtype, const BatchLimits& limits);

// Where several GPUs are to take the same algorithms for matrix products, one measures for all that are of one kind.
// The GPU and the library that choices are good for, as text. On the CPU this and all texts here are "".
std::string kind_of_gemm_choices(Ctx& ctx);
// Has choices here made without measuring, in every run the same. Called before the first product.
void choose_gemms_by_rule(Ctx& ctx);
// After warm-up's products: the measured choices; and those of another GPU of this kind, which replace them.
std::string measured_gemm_choices(Ctx& ctx);
void take_gemm_choices(Ctx& ctx, const std::string& choices);
// 16 hexadecimal digits. Two runs with the same digits take the same algorithm for each product.
std::string digest_of_gemm_choices(Ctx& ctx);

// Keeps what was chosen. Called after one forward and backward; a plan built later is counted (Gpu::late_plans).
void finish_warm_up(Ctx& ctx);

}  // namespace mixtune
