// The optimizer step over a State, tensor by tensor.
#pragma once

#include "config/config.h"
#include "state/state.h"
#include "tensor/ctx.h"

namespace mixtune {

// The 2-norm of all finished gradients; each parameter counts once.
double gradient_norm(Ctx& ctx, State& state);

// Updates every trained weight with the finished gradients times grad_scale. Weight decay applies to tensors of two or
// more dimensions on disk (projections, experts, router, embeddings), not to norms. step counts from 1.
struct OptimizerStep {
  int64_t step;
  double learning_rate;
  double grad_scale;
};
void adamw_step(Ctx& ctx, State& state, const OptimizerSettings& settings, const OptimizerStep& args);

// What clipping multiplies gradients with (as torch's clip_grad_norm_: max_norm / (norm + 1e-6), at most 1).
double clip_scale(double norm, double max_norm);

}  // namespace mixtune
