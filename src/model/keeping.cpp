#include "model/keeping.h"

#include <limits>

namespace mixtune {

Tensor Keeping::Forward::begin_layer(int64_t layer, const Tensor& input) {
  const Tensor output = spare_ ? spare_ : keeping_.activations_.push(ctx_, "layer output", input.shape);
  layer_ = layer;
  LayerSaved& saved = saved_.layers[layer];
  saved.input = input;
  saved.routing = routing_;
  host_mark_ = ctx_.host_stack.mark(), mark_ = ctx_.stack.mark();
  keeping_.push_routing(ctx_, saved);
  kept_by_full_ = ctx_.stack.mark();
  keeping_.push_attention(ctx_, keeping_.params_.layers[layer], saved);
  if (for_backward_) saved.dispatch.room = keeping_.room_for_rows(ctx_, layer, saved);
  return output;
}

void Keeping::Forward::keep_experts() {
  LayerSaved& saved = saved_.layers[layer_];
  saved.gate_up = {}, saved.expert_rows = {}, saved.gate_up_inner = {}, saved.down_inner = {};
  if (for_backward_ && keeping_.activations_.recompute != Recompute::kFull)
    saved.down_inner = keeping_.push_inner(ctx_, keeping_.params_.layers[layer_].down_adapter, saved.dispatch.rows);
  saved.mark = ctx_.stack.mark();
  if (for_backward_ && !keeping_.keep_experts(ctx_, layer_, saved)) ++saved_.recomputed;
}

void Keeping::Forward::end_layer() {
  if (!for_backward_) {
    ctx_.stack.release(mark_);
    ctx_.host_stack.release(host_mark_);
    if (!first_) spare_ = saved_.layers[layer_].input;
  } else if (keeping_.activations_.recompute == Recompute::kFull) {
    ctx_.stack.release(kept_by_full_);
  }
  first_ = false;
}

bool Keeping::push_again(Ctx& ctx, int64_t layer, LayerSaved& saved) const {
  if (activations_.recompute != Recompute::kFull) return false;
  push_attention(ctx, params_.layers[layer], saved);
  return true;
}

Tensor Keeping::push_inner(Ctx& ctx, const AdapterParams& adapter, int64_t rows) const {
  return adapter.is_set() ? activations_.push(ctx, "adapter inner", {rows, adapter.inner_size()}) : Tensor{};
}

Tensor Keeping::gate_up(Ctx& ctx, const LayerSaved& saved) const {
  return saved.gate_up ? saved.gate_up : push_gate_up(ctx, saved);
}

void Keeping::push_routing(Ctx& ctx, LayerSaved& saved) const {
  const int64_t tokens = saved.input.rows(), k = config_.num_experts_per_tok;
  saved.router_logits = activations_.push_statistics(ctx, "router logits", {tokens, config_.num_local_experts});
  saved.routing.experts = ctx.stack.push("chosen experts", {tokens, k}, DType::kI32);
  saved.routing.weights = activations_.push_statistics(ctx, "routing weights", {tokens, k});
  if (saved.routing.limit.is_set()) saved.routing.sent = ctx.stack.push("sent pairs", {tokens, k}, DType::kI32);
  saved.dispatch = dispatcher_.reserve(ctx, saved.routing);
}

void Keeping::push_attention(Ctx& ctx, const LayerParams& params, LayerSaved& saved) const {
  const int64_t tokens = saved.input.rows();
  saved.input_rstd = activations_.push_statistics(ctx, "input rstd", {tokens});
  saved.qkv = activations_.push(ctx, "qkv", {tokens, config_.qkv_size()});
  saved.qkv_inner = push_inner(ctx, params.qkv_adapter, tokens);
  saved.out_inner = push_inner(ctx, params.out_adapter, tokens);
  saved.attention = activations_.push(ctx, "attention output", {tokens, config_.query_size()});
  saved.lse = activations_.push_statistics(ctx, "attention log-sum-exp", {tokens, config_.num_attention_heads});
  saved.middle = activations_.push(ctx, "residual after attention", saved.input.shape);
  saved.middle_rstd = activations_.push_statistics(ctx, "residual rstd", {tokens});
}

int64_t Keeping::room_for_rows(const Ctx& ctx, int64_t layer, const LayerSaved& saved) const {
  if (still_needed_.empty()) return std::numeric_limits<int64_t>::max();
  const size_t number = saved.routing.first_token ? dtype_size(DType::kI64) : 0;
  const int64_t columns = config_.hidden_size + params_.layers[layer].down_adapter.inner_size();
  const size_t row = columns * dtype_size(activations_.dtype) + dtype_size(saved.routing.weights.dtype) + number;
  // Alignment of each tensor: rows, their weights, their numbers, what an adapter keeps.
  const size_t needed = still_needed_[layer] + (number > 0 ? 4 : 3) * kAlignment;
  return needed < ctx.stack.left() ? static_cast<int64_t>((ctx.stack.left() - needed) / row) : 0;
}

bool Keeping::keep_experts(Ctx& ctx, int64_t layer, LayerSaved& saved) const {
  if (activations_.recompute == Recompute::kFull) return true;
  const Dispatcher::RowsAgain rows = dispatcher_.rows_again(saved.dispatch);
  const bool keeps_rows = rows == Dispatcher::RowsAgain::kKept, keeps_gate_up = gate_up_fits(ctx, layer, saved);
  const Shape shape = {saved.dispatch.rows, config_.hidden_size};
  if (keeps_rows && keeps_gate_up) saved.expert_rows = recipe_.push_kept_rows(ctx, shape, gate_up_weight(saved));
  if (keeps_rows && !saved.expert_rows) saved.dispatch.kept = activations_.push(ctx, "expert rows", shape);
  if (keeps_gate_up) {
    saved.gate_up_inner = push_inner(ctx, params_.layers[layer].gate_up_adapter, saved.dispatch.rows);
    saved.gate_up = push_gate_up(ctx, saved);
  }
  return rows != Dispatcher::RowsAgain::kNoRoom && (keeps_gate_up || activations_.recompute == Recompute::kSelective);
}

bool Keeping::gate_up_fits(const Ctx& ctx, int64_t layer, const LayerSaved& saved) const {
  if (activations_.recompute == Recompute::kSelective) return false;
  if (still_needed_.empty()) return true;
  const auto bytes = [&](int64_t columns) {
    return align_up(static_cast<size_t>(saved.dispatch.rows * columns) * dtype_size(activations_.dtype));
  };
  const bool keeps_rows = dispatcher_.rows_again(saved.dispatch) == Dispatcher::RowsAgain::kKept;
  const size_t rows = keeps_rows ? bytes(config_.hidden_size) : 0;
  const size_t inner = bytes(params_.layers[layer].gate_up_adapter.inner_size());
  return bytes(2 * config_.intermediate_size) + inner + rows + still_needed_[layer] <= ctx.stack.left();
}

Shape Keeping::gate_up_weight(const LayerSaved& saved) const {
  return {saved.dispatch.groups().groups, 2 * config_.intermediate_size, config_.hidden_size};
}

Tensor Keeping::push_gate_up(Ctx& ctx, const LayerSaved& saved) const {
  return activations_.push(ctx, "gate-up output", {saved.dispatch.rows, 2 * config_.intermediate_size});
}

}  // namespace mixtune
