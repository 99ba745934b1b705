// Activations: how the model computes. Saved: what a forward pass leaves to its backward pass.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "config/config.h"
#include "kernels/eight_bit/quantise.h"
#include "model/capacity.h"
#include "model/dispatcher.h"
#include "model/kv_cache.h"
#include "model/router_noise.h"

namespace mixtune {

// Tensors of T rows have `dtype`. Statistics (rstd, lse, the router's tensors, row weights) are fp32 in a bf16 model.
struct Activations {
  DType dtype = DType::kF32;
  Recompute recompute = Recompute::kNone;
  Capacity capacity = {};
  Tensor expert_bias = {};  // [L, E] fp32; empty: none
  RouterNoise router_noise = {};
  const KvCache* cache = nullptr;  // of the sequences that batches go on with; null: of none
  bool sinkhorn = false;           // Router::Options

  Tensor push(Ctx& ctx, const char* name, Shape shape) const { return ctx.stack.push(name, shape, dtype); }
  Tensor push_statistics(Ctx& ctx, const char* name, Shape shape) const {
    return ctx.stack.push(name, shape, statistics_dtype(dtype));
  }
};

struct LayerSaved {
  Tensor input;       // [T, H] residual stream before the layer
  Tensor input_rstd;  // [T]
  Tensor qkv;         // [T, q + 2 kv], turned by RoPE
  Tensor qkv_inner;   // Adapter::u of each adapter; empty: there is none, or it is computed again
  Tensor out_inner;
  Tensor attention;         // [T, q]
  Tensor lse;               // [T, heads]
  Tensor middle;            // [T, H] residual stream between attention and experts
  Tensor middle_rstd;       // [T]
  Tensor router_logits;     // [T, E]
  Routing routing;          // [T, k]
  DispatchHandle dispatch;  // routing, sorted by expert
  Tensor gate_up_inner;     // [R, m r], and so on: Adapter::u
  Tensor down_inner;
  Tensor gate_up;     // [R, 2F], without what adapted_swiglu adds; empty: recomputed in backward
  Codes expert_rows;  // of dispatch.kept, in its place (Recipe::push_kept_rows), where gate_up is kept
  size_t mark = 0;    // of the stack, before the experts' dispatch.kept and gate_up
};

// What one micro-batch saves. Several may be alive at once: each one's tensors lie on the stacks of the ctx that its
// passes are given, which then are its own.
struct Saved {
  Tensor rope_table;    // [T, head_dim]
  Tensor router_stats;  // [L, 2, E] fp64, for router_loss
  Tensor router_tally;  // [L, E + kTallyNumbers] fp64, to which forward passes add (router_health); empty: they do not
  Tensor dropped;       // [2] fp64: drop_pairs adds to it (kernels/moe/capacity.h); empty: it does not
  std::vector<LayerSaved> layers;  // sized once by Mixtral::make_saved
  std::optional<uint64_t> noise;   // of the step, by which all that draws.h names is drawn; none: this is no training
  int64_t recomputed = 0;          // layers that keep less of their experts than they were to: it does not fit
  std::vector<Tensor> forced;  // for tests and benchmarks: each layer's experts [T, k] int32; empty: the router chooses
};

}  // namespace mixtune
