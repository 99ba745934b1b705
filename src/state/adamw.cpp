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

}  // namespace

AdamW::AdamW(State& state, const OptimizerSettings& settings, uint64_t seed) : state_(state), settings_(settings) {
  for (int p = 0; p < state.size(); ++p) {
    const Tensor gradient = state.gradient(p).tensor;
    if (!gradient) continue;
    const State::Piece counted = state.counted(p), owned = state.owned(p);
    if (counted.count > 0) gradients_.push_back(elements(gradient, counted.begin, counted.count));
    for (const HfSlice& slice : state.spec(p).slices) {
      const int64_t begin = std::max(slice.offset, owned.begin),
                    count = std::min(slice.offset + slice.elements(), owned.begin + owned.count) - begin;
      if (count <= 0) continue;
      const int64_t place = begin - owned.begin;  // in what is kept of the piece alone
      tensors_.push_back({.weight = elements(state.weight(p), begin, count),
                          .master = elements(state.master(p), place, count),
                          .grad = elements(gradient, begin, count),
                          .m = elements(state.first_moment(p), place, count),
                          .v = elements(state.second_moment(p), place, count),
                          .weight_decay = slice.shape.rank() >= 2 ? settings.weight_decay : 0,
                          .first = slice.begin * (slice.shape.elements() / slice.shape[0]) + begin - slice.offset});
      keys_.push_back(random_key(seed, slice.name));
    }
  }
}

void AdamW::gradient_squares(Ctx& ctx, const Tensor& squares) {
  sum_of_squares(ctx, gradients_, squares);
}

void AdamW::step(Ctx& ctx, const Step& args) {
  state_.await_weights(ctx);
  for (size_t i = 0; i < tensors_.size(); ++i) tensors_[i].key = random_bits(keys_[i], args.step);
  adamw(ctx, tensors_,
        {.learning_rate = args.learning_rate,
         .beta1 = settings_.adam_beta1,
         .beta2 = settings_.adam_beta2,
         .epsilon = settings_.adam_epsilon,
         .step = args.step,
         .grad_scale = args.grad_scale});
  state_.gather_weights();
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
