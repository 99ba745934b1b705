// AdapterUse: the adapter of a weight while ops read it.
#pragma once

#include <optional>

#include "model/lora.h"
#include "precision/adapter.h"
#include "state/state.h"

namespace mixtune {

class AdapterUse {
 public:
  // Where the weight has none, so has this.
  AdapterUse(Ctx& ctx, State& state, const AdapterParams& params, double scale, const Dropout& dropout)
      : state_(state), params_(params) {
    if (!params.is_set()) return;
    a_.emplace(ctx, state, params.a);
    b_.emplace(ctx, state, params.b);
    adapter_ = {.a = **a_, .b = **b_, .modules = params.modules, .scale = scale, .dropout = dropout};
    if (!state.is_training()) return;
    adapter_.da = gradient(params.a);
    adapter_.db = gradient(params.b);
  }

  const Adapter& operator*() const { return adapter_; }

  // For forward to write and backward to read; empty: not kept.
  void set_inner(const Tensor& u) {
    if (adapter_) adapter_.u = u;
  }
  // The same, on the ctx's stack where it was not kept.
  void push_inner(Ctx& ctx, const Tensor& kept, const Tensor& x) {
    if (!adapter_) return;
    adapter_.u = kept ? kept : ctx.stack.push("adapter inner", {x.rows(), adapter_.a.shape[-2]}, x.dtype);
  }
  // For a backward from dy, on the ctx's stack.
  void push_v(Ctx& ctx, const Tensor& dy) {
    if (adapter_) adapter_.v = ctx.stack.push("adapter inner gradient", {dy.rows(), adapter_.a.shape[-2]}, dy.dtype);
  }

  // After the op that writes the gradients.
  void notify() const {
    if (adapter_.da.tensor) state_.gradients().notify(params_.a);
    if (adapter_.db.tensor) state_.gradients().notify(params_.b);
  }

 private:
  WeightGradient gradient(int param) const {
    const GradientSync::Gradient gradient = state_.gradients().gradient(param);
    return {gradient.tensor, gradient.accumulate};
  }

  State& state_;
  const AdapterParams& params_;
  std::optional<WeightUse> a_, b_;
  Adapter adapter_;
};

}  // namespace mixtune
