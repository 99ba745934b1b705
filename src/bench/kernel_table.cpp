#include "bench/kernel_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/cast.h"
#include "kernels/cross_entropy.h"
#include "kernels/embedding.h"
#include "kernels/fill.h"
#include "kernels/moe/capacity.h"
#include "kernels/moe/permute.h"
#include "kernels/moe/router.h"
#include "kernels/optimizer.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"

namespace mixtune {

using Op = KernelOperands;

KernelOperands::KernelOperands(Instance& instance, const RandomBatch& random_batch)
    : ctx(instance.ctx()),
      config(instance.model().config()),
      dtype(instance.model().dtype()),
      statistics(statistics_dtype(dtype)),
      gradients(instance.state().types().gradients),
      batch(to_device(ctx, random_batch.batch())),
      attention(instance.model().attention_shape(batch)),
      T(batch.ids.rows()),
      H(config.hidden_size),
      F(config.intermediate_size),
      E(config.num_local_experts),
      k(config.num_experts_per_tok),
      V(config.vocab_size),
      routing{output({T, k}, DType::kI32), output({T, k}, statistics)} {
  routing.sent = routing.experts;
  const auto dispatcher = make_local_dispatcher(E);
  dispatch = dispatcher->reserve(ctx, routing);
  const Stack::Frame frame(ctx.stack);
  router_forward(ctx, {.logits = random({T, E}, statistics),
                       .live = batch.live_tokens,
                       .experts = routing.experts,
                       .weights = routing.weights,
                       .stats = output({2, E}, DType::kF64)});
  dispatcher->plan(ctx, routing, dispatch);
}

Tensor KernelOperands::random(Shape shape, DType type) const {
  const Tensor tensor = output(shape, type);
  fill_normal(ctx, {.tensor = tensor, .key = ctx.stack.mark()});  // another for each
  return tensor;
}

namespace {

// Counts the bytes of all tensors. One that is both read and written is in the list twice.
PreparedKernel moves(const std::vector<Tensor>& tensors, Work run) {
  double bytes = 0;
  for (const Tensor& tensor : tensors) bytes += static_cast<double>(tensor.bytes());
  return {{.is_product = false, .amount = bytes}, std::move(run)};
}

PreparedKernel multiplies(double flops, Work run) {
  return {{.is_product = true, .amount = flops}, std::move(run)};
}

double product(int64_t m, int64_t n, int64_t k) {
  return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}

PreparedKernel norm_forward(Op& o) {
  const Tensor x = o.random({o.T, o.H}), delta = o.random({o.T, o.H}), weight = o.random({o.H}),
               r = o.output({o.T, o.H}), y = o.output({o.T, o.H}), rstd = o.output({o.T}, o.statistics);
  return moves({x, delta, weight, r, y, rstd}, [=, &o] {
    rms_norm_forward(o.ctx, {.x = x, .delta = delta, .weight = weight, .eps = 1e-5, .r = r, .y = y, .rstd = rstd});
  });
}

PreparedKernel norm_recompute(Op& o) {
  const Tensor r = o.random({o.T, o.H}), weight = o.random({o.H}), rstd = o.random({o.T}, o.statistics),
               y = o.output({o.T, o.H});
  return moves({r, weight, rstd, y}, [=, &o] { rms_norm_recompute(o.ctx, r, weight, rstd, y); });
}

PreparedKernel norm_backward(Op& o) {
  const Tensor r = o.random({o.T, o.H}), weight = o.random({o.H}), rstd = o.random({o.T}, o.statistics),
               dy = o.random({o.T, o.H}), dr = o.random({o.T, o.H}), dweight = o.output({o.H}, o.gradients);
  return moves({r, weight, rstd, dy, dr, dr, dweight}, [=, &o] {
    rms_norm_backward(o.ctx, {.r = r, .weight = weight, .rstd = rstd, .dy = dy, .dr = dr, .dweight = dweight});
  });
}

PreparedKernel rope_in_place(Op& o) {
  const MixtralConfig& c = o.config;
  const Tensor qkv = o.random({o.T, c.qkv_size()}), table = o.output({o.T, c.head_dim}, o.statistics);
  rope_table(o.ctx, o.batch.positions, c.rope_theta, table);
  const Tensor turned = qkv.view({qkv.elements()}).slice(0, o.T * (c.query_size() + c.kv_size()));
  return moves({turned, turned, table}, [=, &o] {
    rope(o.ctx, {.qkv = qkv, .table = table, .q_heads = c.num_attention_heads, .kv_heads = c.num_key_value_heads});
  });
}

// The operations of the forward pass: two products for each query and head, half of them masked.
double attention_flops(const Op& o) {
  const int32_t* offsets = o.batch.host_doc_offsets.as<int32_t>();
  double pairs = 0;
  for (int64_t d = 0; d + 1 < o.batch.host_doc_offsets.rows(); ++d) {
    const double length = offsets[d + 1] - offsets[d];
    pairs += length * length / 2;
  }
  return 4 * pairs * static_cast<double>(o.config.query_size());
}

PreparedKernel attend(Op& o) {
  const Tensor qkv = o.random({o.T, o.config.qkv_size()}), out = o.output({o.T, o.config.query_size()}),
               lse = o.output({o.T, o.config.num_attention_heads}, o.statistics);
  return multiplies(attention_flops(o), [=, &o] { attention_forward(o.ctx, o.attention, qkv, out, lse); });
}

PreparedKernel attend_backward(Op& o) {
  const Tensor qkv = o.random({o.T, o.config.qkv_size()}), out = o.output({o.T, o.config.query_size()}),
               lse = o.output({o.T, o.config.num_attention_heads}, o.statistics), dout = o.random(out.shape),
               dqkv = o.output(qkv.shape);
  attention_forward(o.ctx, o.attention, qkv, out, lse);
  return multiplies(2 * attention_flops(o), [=, &o] {
    attention_backward(o.ctx, o.attention, {.qkv = qkv, .out = out, .lse = lse, .dout = dout, .dqkv = dqkv});
  });
}

PreparedKernel route_logits(Op& o) {
  const Tensor x = o.random({o.T, o.H}), weight = o.random({o.E, o.H}), logits = o.output({o.T, o.E}, o.statistics);
  return moves({x, weight, logits}, [=, &o] { router_logits(o.ctx, x, weight, logits); });
}

PreparedKernel route_logits_backward(Op& o) {
  const Tensor x = o.random({o.T, o.H}), weight = o.random({o.E, o.H}), dlogits = o.random({o.T, o.E}, o.statistics),
               dx = o.random({o.T, o.H}), dweight = o.output({o.E, o.H}, o.gradients);
  return moves({x, weight, dlogits, dx, dx, dweight}, [=, &o] {
    router_logits_backward(o.ctx, {.x = x, .weight = weight, .dlogits = dlogits, .dx = dx, .dweight = dweight});
  });
}

PreparedKernel route(Op& o) {
  const Tensor logits = o.random({o.T, o.E}, o.statistics), experts = o.output({o.T, o.k}, DType::kI32),
               weights = o.output({o.T, o.k}, o.statistics), stats = o.output({2, o.E}, DType::kF64);
  return moves({logits, experts, weights, stats}, [=, &o] {
    router_forward(
        o.ctx, {.logits = logits, .live = o.batch.live_tokens, .experts = experts, .weights = weights, .stats = stats});
  });
}

PreparedKernel route_backward(Op& o) {
  const Tensor logits = o.random({o.T, o.E}, o.statistics), dweights = o.random({o.T, o.k}, o.statistics),
               prob_grad = o.output({o.E}, DType::kF64), dlogits = o.output({o.T, o.E}, o.statistics);
  zero(o.ctx, prob_grad);
  return moves({logits, o.routing.experts, o.routing.weights, dweights, prob_grad, dlogits}, [=, &o] {
    router_backward(o.ctx, {.logits = logits,
                            .experts = o.routing.experts,
                            .weights = o.routing.weights,
                            .dweights = dweights,
                            .prob_grad = prob_grad,
                            .live = o.batch.live_tokens,
                            .dlogits = dlogits});
  });
}

// An expert takes what it gets if all get the same.
PreparedKernel drop(Op& o) {
  const Tensor sent = o.output({o.T, o.k}, DType::kI32), dropped = o.output({2}, DType::kF64);
  const RowLimit limit = Capacity{.factor = 1}.limit(o.batch.live_tokens, o.k, o.E);
  return moves({o.routing.experts, o.routing.weights, sent}, [=, &o] {
    drop_pairs(o.ctx, {.experts = o.routing.experts,
                       .weights = o.routing.weights,
                       .all_experts = o.E,
                       .most = limit.most,
                       .sent = sent,
                       .dropped = dropped});
  });
}

PreparedKernel map_rows(Op& o) {
  const Tensor row_of_slot = o.output({o.T, o.k}, DType::kI32),
               begin = o.ctx.host_stack.push("operand", {o.E}, DType::kI32),
               count = o.ctx.host_stack.push("operand", {o.E}, DType::kI32);
  return moves({o.routing.experts, row_of_slot}, [=, &o] {
    permute_map(o.ctx, {.experts = o.routing.experts, .begin = begin, .count = count, .row_of_slot = row_of_slot});
  });
}

PreparedKernel permute(Op& o) {
  const Tensor x = o.random({o.T, o.H}), rows = o.output({o.R(), o.H});
  return moves({x, o.dispatch.slot_of_row, rows},
               [=, &o] { permute_rows(o.ctx, x, o.dispatch.slot_of_row, o.k, rows); });
}

PreparedKernel unpermute(Op& o) {
  const Tensor rows = o.random({o.R(), o.H}), residual = o.random({o.T, o.H}), y = o.output({o.T, o.H});
  return moves({rows.slice(0, o.pairs()), o.dispatch.row_of_slot, residual, y},
               [=, &o] { unpermute_rows(o.ctx, rows, o.dispatch.row_of_slot, residual, y); });
}

PreparedKernel swiglu(Op& o) {
  const Tensor gate_up = o.random({o.R(), 2 * o.F}), act = o.output({o.R(), o.F});
  return moves({gate_up, o.dispatch.row_weights, act},
               [=, &o] { swiglu_forward(o.ctx, gate_up, o.dispatch.row_weights, act); });
}

// Not in place, as the model does it: that would change what the next run reads.
PreparedKernel swiglu_back(Op& o) {
  const Tensor gate_up = o.random({o.R(), 2 * o.F}), dact = o.random({o.R(), o.F}), dgate_up = o.output(gate_up.shape),
               act = o.output(dact.shape), drow_weights = o.output({o.R()}, o.statistics);
  return moves({gate_up, o.dispatch.row_weights, dact, dgate_up, drow_weights, act}, [=, &o] {
    swiglu_backward(o.ctx, {.gate_up = gate_up,
                            .row_weights = o.dispatch.row_weights,
                            .dact = dact,
                            .dgate_up = dgate_up,
                            .drow_weights = drow_weights,
                            .act = act});
  });
}

PreparedKernel token_losses(Op& o, int64_t chunk) {
  const int64_t n = std::min(chunk, o.batch.target_tokens());
  const Tensor logits = o.random({n, o.V}, o.statistics), losses = o.output({n}, DType::kF64),
               targets = o.batch.targets.slice(0, n), dlogits = o.output({n, o.V});
  return moves({logits, targets, losses, dlogits}, [=, &o] {
    cross_entropy(o.ctx, {.logits = logits, .targets = targets, .losses = losses, .dlogits = dlogits});
  });
}

PreparedKernel embed(Op& o) {
  const Tensor table = o.random({o.V, o.H}), y = o.output({o.T, o.H});
  const Tensor read = table.slice(0, o.batch.rows_by_id.ids.rows());
  return moves({o.batch.ids, read, y}, [=, &o] { embedding_forward(o.ctx, o.batch.ids, table, y); });
}

PreparedKernel embed_backward(Op& o) {
  const Tensor dy = o.random({o.T, o.H}), dtable = o.output({o.V, o.H}, o.gradients);
  return moves({o.batch.rows_by_id.rows, dy, dtable},
               [=, &o] { embedding_backward(o.ctx, {.index = o.batch.rows_by_id, .dy = dy, .dtable = dtable}); });
}

PreparedKernel squares(Op& o) {
  const Tensor gradient = o.random({2 * o.F, o.H}, o.gradients), sum = o.output({1}, DType::kF64);
  return moves({gradient}, [=, &o] { sum_of_squares(o.ctx, {&gradient, 1}, sum); });
}

// The types of an expert's weight and what belongs to it, in one of the ways that a state can hold them.
struct AdamWTypes {
  const char* name;
  DType weights, gradients, moments;
  bool master;
};
constexpr AdamWTypes kAdamWTypes[] = {
    {"adamw, fp32", DType::kF32, DType::kF32, DType::kF32, false},
    {"adamw, bf16 + fp32 state", DType::kBF16, DType::kF32, DType::kF32, true},
    {"adamw, bf16 + fp32, moments bf16", DType::kBF16, DType::kF32, DType::kBF16, true},
    {"adamw, all bf16", DType::kBF16, DType::kBF16, DType::kBF16, false},
};

PreparedKernel update(Op& o, const AdamWTypes& types) {
  const Shape shape = {2 * o.F, o.H};
  AdamWTensor t = {.weight = o.random(shape, types.weights),
                   .grad = o.random(shape, types.gradients),
                   .m = o.output(shape, types.moments),
                   .v = o.output(shape, types.moments)};
  if (types.master) t.master = o.random(shape, DType::kF32);
  const Tensor squares = o.output({1}, DType::kF64), scale = o.output({1}, DType::kF64);
  for (const Tensor& tensor : {t.m, t.v, squares}) zero(o.ctx, tensor);
  clip_scale(o.ctx, {.squares = squares, .scale = scale});
  const Tensor& primary = types.master ? t.master : t.weight;
  std::vector<Tensor> moved = {primary, primary, t.grad, t.m, t.m, t.v, t.v};
  if (types.master) moved.push_back(t.weight);
  const AdamWStep step = {
      .learning_rate = 1e-6, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .step = 1, .grad_scale = scale};
  return moves(moved, [=, &o] { adamw(o.ctx, {&t, 1}, step); });
}

PreparedKernel narrow(Op& o) {
  const Tensor from = o.random({2 * o.F, o.H}, DType::kF32), to = o.output(from.shape, DType::kBF16);
  return moves({from, to}, [=, &o] { cast(o.ctx, from, to); });
}

PreparedKernel fill(Op& o) {
  const Tensor tensor = o.output({2 * o.F, o.H});
  return moves({tensor}, [=, &o] { fill_normal(o.ctx, {.tensor = tensor, .key = 1}); });
}

// y [rows, out] = x [rows, in] W^T and its gradients, over all tokens or over the rows of each expert.
struct Projection {
  std::string name;
  int64_t rows, in, out;
  DType result;  // of y
};

void add_linear(std::vector<KernelRow>& table, const Projection& p) {
  const double flops = product(p.rows, p.in, p.out);
  table.push_back({p.name, [=](Op& o) {
                     const Tensor x = o.random({p.rows, p.in}), w = o.random({p.out, p.in}),
                                  y = o.output({p.rows, p.out}, p.result);
                     return multiplies(flops, [=, &o] { gemm(o.ctx, {.a = x, .b = w, .c = y, .trans_b = true}); });
                   }});
  table.push_back(
      {p.name + ", data gradient", [=](Op& o) {
         const Tensor dy = o.random({p.rows, p.out}), w = o.random({p.out, p.in}), dx = o.output({p.rows, p.in});
         return multiplies(flops, [=, &o] { gemm(o.ctx, {.a = dy, .b = w, .c = dx}); });
       }});
  table.push_back({p.name + ", weight gradient", [=](Op& o) {
                     const Tensor dy = o.random({p.rows, p.out}), x = o.random({p.rows, p.in}),
                                  dw = o.output({p.out, p.in}, o.gradients);
                     return multiplies(flops, [=, &o] { gemm(o.ctx, {.a = dy, .b = x, .c = dw, .trans_a = true}); });
                   }});
}

// Gap rows are random, not 0: that takes no more time.
void add_grouped(std::vector<KernelRow>& table, const Projection& p, int64_t experts, double flops) {
  table.push_back({p.name, [=](Op& o) {
                     const Tensor x = o.random({p.rows, p.in}), w = o.random({experts, p.out, p.in}),
                                  y = o.output({p.rows, p.out}, p.result);
                     return multiplies(flops, [=, &o] {
                       grouped_gemm(o.ctx, {.x = x, .w = w, .y = y, .groups = o.dispatch.groups(), .trans_w = true});
                     });
                   }});
  table.push_back({p.name + ", data gradient", [=](Op& o) {
                     const Tensor dy = o.random({p.rows, p.out}), w = o.random({experts, p.out, p.in}),
                                  dx = o.output({p.rows, p.in});
                     return multiplies(flops, [=, &o] {
                       grouped_gemm(o.ctx, {.x = dy, .w = w, .y = dx, .groups = o.dispatch.groups()});
                     });
                   }});
  table.push_back({p.name + ", weight gradient", [=](Op& o) {
                     const Tensor dy = o.random({p.rows, p.out}), x = o.random({p.rows, p.in}),
                                  dw = o.output({experts, p.out, p.in}, o.gradients);
                     return multiplies(flops, [=, &o] {
                       grouped_wgrad(o.ctx, {.dy = dy, .x = x, .dw = dw, .groups = o.dispatch.groups()});
                     });
                   }});
}

constexpr int64_t kHeadChunk = 4096;  // rows of logits at a time, as on a GPU with 32,000 words

}  // namespace

std::vector<KernelRow> kernel_table(const KernelOperands& o) {
  const MixtralConfig& c = o.config;
  const int64_t chunk = std::min(o.T, kHeadChunk);
  std::vector<KernelRow> table = {
      {"embedding", embed},
      {"embedding, backward", embed_backward},
      {"rms_norm", norm_forward},
      {"rms_norm, recompute", norm_recompute},
      {"rms_norm, backward", norm_backward},
      {"rope", rope_in_place},
      {"attention", attend},
      {"attention, backward", attend_backward},
      {"router_logits", route_logits},
      {"router_logits, backward", route_logits_backward},
      {"router", route},
      {"router, backward", route_backward},
      {"expert capacity", drop},
      {"permute_map, with its wait", map_rows},
      {"permute_rows", permute},
      {"unpermute_rows", unpermute},
      {"swiglu", swiglu},
      {"swiglu, backward", swiglu_back},
      {"cross_entropy",
       [=](Op& op) {
         return token_losses(op, chunk);
       }},
      {"sum_of_squares", squares},
      {"cast fp32 to bf16", narrow},
      {"fill_normal", fill},
  };
  for (const AdamWTypes& types : kAdamWTypes)
    if (types.weights == o.dtype)
      table.push_back({types.name, [=](Op& op) {
                         return update(op, types);
                       }});
  add_linear(table, {"qkv", o.T, o.H, c.qkv_size(), o.dtype});
  add_linear(table, {"attention output", o.T, c.query_size(), o.H, o.dtype});
  add_linear(table, {"LM head", chunk, o.H, o.V, o.statistics});
  add_grouped(table, {"gate-up", o.R(), o.H, 2 * o.F, o.dtype}, o.E, product(o.pairs(), o.H, 2 * o.F));
  add_grouped(table, {"down", o.R(), o.F, o.H, o.dtype}, o.E, product(o.pairs(), o.F, o.H));
  return table;
}

}  // namespace mixtune
