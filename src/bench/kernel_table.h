// The ops that 'mixtune bench kernels' times, each on operands of a model's shape.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bench/measure.h"
#include "data/random_batch.h"
#include "model/instance.h"

namespace mixtune {

// What all ops get: a batch, its routing to experts, sizes and types. T tokens, R routed rows, E experts, k of them a
// token, H hidden, F ffn, V vocab.
struct KernelOperands {
  // Both references outlive this, and so does what it puts on the stack.
  KernelOperands(Instance& instance, const RandomBatch& random_batch);

  Ctx& ctx;
  const MixtralConfig& config;
  DType dtype, statistics, gradients;
  Batch batch;
  AttentionShape attention;
  int64_t T, H, F, E, k, V;
  Routing routing;
  DispatchHandle dispatch;

  int64_t R() const { return dispatch.rows; }
  int64_t pairs() const { return batch.live_tokens * k; }  // rows that hold a token

  // A tensor on the stack with random values; output() leaves there whatever there is.
  Tensor random(Shape shape, DType type) const;
  Tensor random(Shape shape) const { return random(shape, dtype); }
  Tensor output(Shape shape, DType type) const { return ctx.stack.push("operand", shape, type); }
  Tensor output(Shape shape) const { return output(shape, dtype); }
};

// The least work of an op: the bytes it moves, each input read and each output written once; or, for a product, the
// model's floating-point operations.
struct KernelCost {
  bool is_product;
  double amount;
};

struct PreparedKernel {
  KernelCost cost;
  Work run;  // may run any number of times
};

struct KernelRow {
  std::string name;
  std::function<PreparedKernel(KernelOperands&)> prepare;  // its operands stay on the stack
};

std::vector<KernelRow> kernel_table(const KernelOperands& operands);

}  // namespace mixtune
