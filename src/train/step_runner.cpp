#include "train/step_runner.h"

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "tensor/profiler.h"

namespace mixtune {

namespace {

// The scalars behind the routers' tally. From that on to the own losses, all are sums over ranks.
constexpr int64_t kRequests = 3, kRouterSquares = kRequests, kSquares = kRouterSquares + 1, kDropped = kSquares + 1,
                  kFirstLoss = kDropped + 2, kScale = kFirstLoss + kLosses;

// A loss of the step is the sum of what micro-batches add, by this.
double divisor(RouterLossType type, const StepRunner::Loss& loss, int64_t micro_batches) {
  if (type == RouterLossType::kZ) return static_cast<double>(loss.tokens);
  return static_cast<double>(type == RouterLossType::kSequence ? loss.documents : micro_batches);
}

template <class Use>
void for_each_loss(const RouterLosses& losses, const Use& use) {
  for (int64_t i = 0; i < kRouterLossTypes; ++i)
    if (const auto type = static_cast<RouterLossType>(i); losses[type]) use(type, *losses[type]);
}

}  // namespace

StepRunner::StepRunner(Instance& instance, const OptimizerSettings& settings, uint64_t seed)
    : instance_(instance),
      optimizer_(instance.state(), settings, seed),
      saved_(instance.model().make_saved()),
      routers_(instance.model().config()),
      tally_size_(routers_.tally_shape().elements()),
      noise_(random_key(seed, "router noise")),
      scalars_(instance.ctx(), "step scalars", tally_size_ + kScale + 1),
      router_squares_(scalars_.slice(tally_size_ + kRouterSquares)),
      squares_(scalars_.slice(tally_size_ + kSquares)),
      losses_(scalars_.slice(tally_size_ + kFirstLoss, kLosses)),
      scale_(scalars_.slice(tally_size_ + kScale)),
      router_counts_(instance.ctx(), "router counts of a step",
                     instance.model().config().num_hidden_layers * instance.model().config().num_local_experts) {
  // Both numbers go through one sum, though squares are summed over all ranks and losses over those with other tokens.
  MT_CHECK(instance.ranks().data->size() == instance.ranks().all->size());
  saved_.dropped = scalars_.slice(tally_size_ + kDropped, 2);
  if (instance.ranks().all->size() > 1) report_.emplace(instance);
  if (instance.options().recipe.eight_bit) operands_.emplace(instance);
}

void StepRunner::forward_backward(std::span<const Batch> micro_batches, const Loss& loss) {
  Ctx& ctx = instance_.ctx();
  instance_.state().gradients().begin_step();
  scalars_.clear(ctx);
  recomputed_ = 0;
  bias_rate_.reset();
  loss_ = loss;
  micro_batches_ = static_cast<int64_t>(micro_batches.size());
  reported_ = report_.has_value();
  tallied_ = true;
  saved_.router_tally = scalars_.slice(0, tally_size_).view(routers_.tally_shape());
  saved_.noise = random_bits(noise_, static_cast<uint64_t>(loss.step));
  if (operands_ && loss.looks_at_operands) operands_->begin();
  if (report_) report_->begin();
  const MixtralConfig& config = instance_.model().config();
  LossScales scales = {.token_scale = 1 / loss.target_weight, .ranks = &instance_.ranks()};
  for_each_loss(loss.router, [&](RouterLossType type, double coefficient) {
    scales.router[type] = coefficient / divisor(type, loss, micro_batches_);
  });
  if (loss.router[RouterLossType::kGlobal]) {
    router_counts_.clear(ctx);
    const Shape shape = {config.num_hidden_layers, config.num_local_experts};
    scales.router_counts = router_counts_.slice(0, shape.elements()).view(shape);
  }
  for (const Batch& batch : micro_batches) {
    if (&batch == &micro_batches.back()) instance_.state().gradients().begin_last_micro_batch();
    scales.counted_tokens += batch.step_tokens;
    if (report_) report_->add(batch);
    run_micro_batch(&batch == &micro_batches.front(),
                    [&] { mixtune::forward_backward(ctx, instance_.model(), batch, saved_, scales, losses_); });
    recomputed_ += saved_.recomputed;
  }
}

void StepRunner::run_micro_batch(bool first, const std::function<void()>& work) {
  Ctx& ctx = instance_.ctx();
  const bool looks_inside = ctx.profiler != nullptr || (operands_ && loss_.looks_at_operands);
  if (!instance_.options().cuda_graphs || looks_inside) return work();
  graphs_[first ? 0 : 1].run(ctx, work);
}

void StepRunner::forward(std::span<const Batch> micro_batches) {
  scalars_.clear(instance_.ctx());
  loss_ = {};
  reported_ = tallied_ = false;
  saved_.router_tally = {};
  saved_.noise.reset();
  for (const Batch& batch : micro_batches)
    forward_loss(instance_.ctx(), instance_.model(), batch, saved_, losses_.slice(0, 1));
}

void StepRunner::update(const Update& args) {
  Ctx& ctx = instance_.ctx();
  instance_.ranks().set_activity("optimizer");
  bias_rate_ = args.bias_rate;
  {
    const Range range(ctx, GradientSync::kSums);
    instance_.state().gradients().finish(ctx);
  }
  if (args.with_norm) {
    const Range range(ctx, "gradient norm");
    optimizer_.gradient_squares(ctx, squares_);
    optimizer_.gradient_squares(ctx, router_squares_, WeightGroup::kRouter);
  }
  if (const auto& [stop, save, settled] = args.requests; stop || save || settled)
    scalars_.set(ctx, tally_size_, {stop ? 1.0 : 0.0, save ? 1.0 : 0.0, settled ? 1.0 : 0.0});
  // The router's other losses are those of all ranks already.
  instance_.ranks().all->all_reduce(ctx, "loss and gradient norm",
                                    scalars_.slice(0, tally_size_ + kFirstLoss + kOwnLosses));
  const Range range(ctx, "optimizer");
  clip_scale(ctx, {.squares = squares_, .guards = losses_, .scale = scale_, .max_norm = args.max_norm});
  optimizer_.step(ctx, {.step = args.step, .lr_share = args.lr_share, .grad_scale = scale_});
}

StepRunner::Result StepRunner::read() {
  const double* tally = scalars_.read(instance_.ctx());
  const double* scalars = tally + tally_size_;
  Result result = {.token_loss = scalars[kFirstLoss],
                   .grad_norm = std::sqrt(scalars[kSquares]),
                   .router_grad_norm = std::sqrt(scalars[kRouterSquares]),
                   .recomputed = recomputed_,
                   .parallel = reported_ ? &report_->read() : nullptr,
                   .requests = {scalars[0] > 0, scalars[1] > 0, scalars[2] == instance_.ranks().all->size()},
                   .routers = tallied_ ? &routers_.read(tally, instance_.expert_bias().ranges()) : nullptr,
                   .operands = operands_ ? operands_->read() : nullptr};
  // Of several ranks the report has read it already.
  result.memory_gib = result.parallel ? std::ranges::max(result.parallel->ranks, {}, &RankRecord::memory_gib).memory_gib
                                      : memory_gib(instance_.options().device);
  const MixtralConfig& config = instance_.model().config();
  if (const auto tokens = static_cast<double>(loss_.tokens * config.num_hidden_layers); tokens > 0)
    result.drop_rates = {scalars[kDropped] / (tokens * static_cast<double>(config.num_experts_per_tok)),
                         scalars[kDropped + 1] / tokens};
  for_each_loss(loss_.router, [&](RouterLossType type, double coefficient) {
    const double mean = scalars[kFirstLoss + loss_index(type)] / divisor(type, loss_, micro_batches_);
    result.router[type] = mean;
    result.router_loss += coefficient * mean;
  });
  if (result.routers != nullptr) move_expert_bias(!std::isnan(scalars[kScale]), *result.routers);
  return result;
}

void StepRunner::move_expert_bias(bool changed_weights, const RouterRecord& routers) {
  ExpertBias& bias = instance_.expert_bias();
  if (bias && bias_rate_ && changed_weights) {
    bias.move(routers.layer_expert_tokens, *bias_rate_);
    bias.upload(instance_.ctx());
  }
  bias_rate_.reset();
}

}  // namespace mixtune
