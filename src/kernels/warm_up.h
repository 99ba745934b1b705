// What libraries are told before a run, so that no plan is built inside a step.
#pragma once

#include <string>

#include "kernels/attention/attention.h"

namespace mixtune {

// The largest micro-batch to come: T, its longest document, and the most documents; and the micro-batches of a step, of
// which all but the first add their gradients.
struct BatchLimits {
  int64_t tokens, longest_document, documents;
  int64_t micro_batches = 1;
  int64_t expert_ranks = 1;  // over which experts are spread: all of their tokens may go to one expert
  bool weighted = false;     // targets have weights
};

// On a GPU: builds the plans of attention (shape's documents do not matter), and makes the matrix products that follow
// choose their algorithms for every number of tokens up to the limit. Nothing on the CPU.
void begin_warm_up(Ctx& ctx, const AttentionShape& shape, DType dtype, const BatchLimits& limits);

// Where several GPUs are to take the same algorithms for matrix products, one measures for all that are of one kind.
// What choices are good for: the GPU and the library, as text. "" on the CPU, as all texts here.
std::string kind_of_gemm_choices(Ctx& ctx);
// Before the first product: the choices here are made without measuring, in every run the same.
void choose_gemms_by_rule(Ctx& ctx);
// After the products of warm-up: the measured choices, and those of another GPU of this kind, which are taken over.
std::string measured_gemm_choices(Ctx& ctx);
void take_gemm_choices(Ctx& ctx, const std::string& choices);
// 16 hexadecimal digits: two runs where they are the same take the same algorithm for each product.
std::string digest_of_gemm_choices(Ctx& ctx);

// After one forward and backward: keeps what was chosen. A plan built from now on is counted (Gpu::late_plans).
void finish_warm_up(Ctx& ctx);

// Which kernels attention runs: "cuDNN 9.19.0", "own kernels".
std::string attention_backend(Ctx& ctx, const AttentionShape& shape, DType dtype);

}  // namespace mixtune
