#include "state/adamw.h"

#include <algorithm>
#include <cmath>

#include "base/random.h"

namespace mixtune {

namespace {

// Elements [offset, offset + count) of a tensor; empty stays empty.
Tensor elements(const Tensor& tensor, int64_t offset, int64_t count) {
  return tensor ? tensor.view({tensor.elements()}).slice(offset, count) : tensor;
}

// Whether a step draws random bits for the elements (kernels/optimizer.h).
bool rounds_stochastically(const State& state, int param) {
  const auto is_bf16 = [](const Tensor& tensor) {
    return tensor && tensor.dtype == DType::kBF16;
  };
  return is_bf16(state.first_moment(param)) || is_bf16(state.second_moment(param)) ||
         (!state.master(param) && is_bf16(state.weight(param)));
}

}  // namespace

AdamW::AdamW(State& state, const OptimizerSettings& settings, uint64_t seed) : state_(state), settings_(settings) {
  for (int p = 0; p < state.size(); ++p) {
    peak_of_.push_back(state.spec(p).lr_ratio * peak_learning_rate(settings, state.spec(p).group));
    if (std::ranges::find(peaks_, peak_of_[p]) == peaks_.end()) peaks_.push_back(peak_of_[p]);
  }
  keys_.resize(state.size());
  for (int p = 0; p < state.size(); ++p)
    for (const HfBlock& block : state.spec(p).blocks) keys_[p].push_back(random_key(seed, block.name));
}

void AdamW::gradient_squares(Ctx& ctx, const Tensor& squares, std::optional<WeightGroup> group) {
  gradients_.clear();
  for (int p = 0; p < state_.size(); ++p) {
    if (group && state_.spec(p).group != *group) continue;
    const Tensor gradient = state_.gradients().gradient(p).tensor;
    const ParamLayout::Piece counted = state_.layout().counted(p);
    if (gradient && counted.count > 0) gradients_.push_back(elements(gradient, counted.begin, counted.count));
  }
  sum_of_squares(ctx, gradients_, squares);
}

// Adds a tensor for each stretch of places in a Hugging Face tensor that this rank owns of the parameter.
void AdamW::add_tensors(int param) {
  const Tensor gradient = state_.gradients().gradient(param).tensor;
  if (!gradient) return;
  const ParamLayout::Piece owned = state_.layout().owned(param);
  const std::vector<HfBlock>& blocks = state_.spec(param).blocks;
  const bool draws = rounds_stochastically(state_, param);
  for (size_t b = 0; b < blocks.size(); ++b) {
    const HfBlock& block = blocks[b];
    const int64_t first = std::max(block.offset, owned.begin) - block.offset,
                  count = std::min(block.elements(), owned.begin + owned.count - block.offset) - first;
    if (count <= 0) continue;
    const auto add = [&](int64_t index, int64_t place, int64_t n) {
      const int64_t begin = block.offset + index, in_piece = begin - owned.begin;
      tensors_.push_back({.weight = elements(state_.weight(param), begin, n),
                          .master = elements(state_.master(param), in_piece, n),
                          .grad = elements(gradient, begin, n),
                          .m = elements(state_.first_moment(param), in_piece, n),
                          .v = elements(state_.second_moment(param), in_piece, n),
                          .weight_decay = block.shape().rank() >= 2 ? settings_.weight_decay : 0,
                          .key = keys_[param][b],
                          .first = place});
    };
    // Places matter to random bits alone; a box that is some columns of its tensor has a run for each row.
    if (draws)
      block.box.for_each_run(first, count, add);
    else
      add(first, 0, count);
  }
}

void AdamW::update(Ctx& ctx, size_t bucket, const Step& args) {
  const ParamLayout::Bucket& here = state_.layout().buckets()[bucket];
  for (const double peak : peaks_) {
    tensors_.clear();
    for (int p = here.first; p < here.last; ++p)
      if (peak_of_[p] == peak) add_tensors(p);
    if (!tensors_.empty()) update_tensors(ctx, peak, args);
  }
}

void AdamW::update_tensors(Ctx& ctx, double peak, const Step& args) {
  for (AdamWTensor& tensor : tensors_) tensor.key = random_bits(tensor.key, args.step);
  adamw(ctx, tensors_,
        {.learning_rate = peak * args.lr_share,
         .beta1 = settings_.adam_beta1,
         .beta2 = settings_.adam_beta2,
         .epsilon = settings_.adam_epsilon,
         .step = args.step,
         .grad_scale = args.grad_scale});
}

void AdamW::step(Ctx& ctx, const Step& args) {
  state_.weight_sync().await_all(ctx);
  for (size_t bucket = 0; bucket < state_.layout().buckets().size(); ++bucket) update(ctx, bucket, args);
  state_.weights_trained();
  state_.weight_sync().begin();
}

double gradient_norm(Ctx& ctx, AdamW& optimizer) {
  const Frame frame(ctx);
  const Tensor squares = ctx.stack.push("gradient squares", {1}, DType::kF64);
  const Tensor here = ctx.host_stack.push("gradient squares", {1}, DType::kF64);
  optimizer.gradient_squares(ctx, squares);
  copy(ctx, squares, here);
  wait(ctx);
  return std::sqrt(*here.as<double>());
}

}  // namespace mixtune
