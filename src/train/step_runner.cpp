#include "train/step_runner.h"

#include <cmath>

#include "tensor/profiler.h"

namespace mixtune {

StepRunner::StepRunner(Instance& instance, const OptimizerSettings& settings, uint64_t seed)
    : instance_(instance),
      optimizer_(instance.state(), settings, seed),
      saved_(instance.model().make_saved()),
      scalars_(instance.ctx(), "step scalars", 7),
      squares_(scalars_.slice(3)),
      losses_(scalars_.slice(4, 2)),
      scale_(scalars_.slice(6)) {
  // Both numbers go through one sum, though squares are summed over all ranks and losses over those with other tokens.
  MT_CHECK(instance.ranks().data->size() == instance.ranks().all->size());
  if (instance.ranks().all->size() > 1) report_.emplace(instance);
  if (instance.options().recipe.eight_bit) operands_.emplace(instance);
}

void StepRunner::forward_backward(std::span<const Batch> micro_batches, const Loss& loss) {
  Ctx& ctx = instance_.ctx();
  instance_.state().gradients().begin_step();
  scalars_.clear(ctx);
  recomputed_ = 0;
  reported_ = report_.has_value();
  if (operands_ && loss.looks_at_operands) operands_->begin();
  if (report_) report_->begin(static_cast<int64_t>(micro_batches.size()));
  for (const Batch& batch : micro_batches) {
    if (&batch == &micro_batches.back()) instance_.state().gradients().begin_last_micro_batch();
    mixtune::forward_backward(ctx, instance_.model(), batch, saved_,
                              {.router_loss_type = loss.router_loss_type,
                               .token_scale = 1 / loss.target_weight,
                               .router_scale = loss.router_coefficient / static_cast<double>(micro_batches.size()),
                               .ranks = &instance_.ranks(),
                               .router_stats = report_ ? report_->add(batch) : Tensor{}},
                              losses_);
    recomputed_ += saved_.recomputed;
  }
}

void StepRunner::forward(std::span<const Batch> micro_batches) {
  scalars_.clear(instance_.ctx());
  reported_ = false;
  for (const Batch& batch : micro_batches)
    forward_loss(instance_.ctx(), instance_.model(), batch, saved_, losses_.slice(0, 1));
}

void StepRunner::update(const Update& args) {
  Ctx& ctx = instance_.ctx();
  instance_.ranks().set_activity("optimizer");
  {
    const Range range(ctx, GradientSync::kSums);
    instance_.state().gradients().finish(ctx);
  }
  if (args.with_norm) {
    const Range range(ctx, "gradient norm");
    optimizer_.gradient_squares(ctx, squares_);
  }
  if (const auto& [stop, save, settled] = args.requests; stop || save || settled)
    scalars_.set(ctx, 0, {stop ? 1.0 : 0.0, save ? 1.0 : 0.0, settled ? 1.0 : 0.0});
  // Requests, squares and token losses; the router's loss is that of all ranks already.
  instance_.ranks().all->all_reduce(ctx, "loss and gradient norm", scalars_.slice(0, 5));
  const Range range(ctx, "optimizer");
  clip_scale(ctx, {.squares = squares_, .guards = losses_, .scale = scale_, .max_norm = args.max_norm});
  optimizer_.step(ctx, {.step = args.step, .lr_share = args.lr_share, .grad_scale = scale_});
}

StepRunner::Result StepRunner::read() {
  const double* scalars = scalars_.read(instance_.ctx());
  return {.token_loss = scalars[4],
          .router_loss = scalars[5],
          .grad_norm = std::sqrt(scalars[3]),
          .recomputed = recomputed_,
          .parallel = reported_ ? &report_->read() : nullptr,
          .requests = {scalars[0] > 0, scalars[1] > 0, scalars[2] == instance_.ranks().all->size()},
          .operands = operands_ ? operands_->read() : nullptr};
}

}  // namespace mixtune
