#include "bench/steps.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "base/random.h"
#include "bench/measure.h"
#include "kernels/fill.h"

namespace mixtune {

namespace {

constexpr uint64_t kSeed = 1;

void encode_normal(Instance& instance, int param, double deviation) {
  State& state = instance.state();
  Ctx& ctx = instance.ctx();
  const std::vector<HfBlock>& blocks = state.spec(param).blocks;
  for (size_t b = 0; b < blocks.size(); ++b) {
    const Frame frame(ctx);
    const Tensor values = ctx.stack.push("random weights", {blocks[b].elements()}, state.types().weights);
    fill_normal(ctx, {.tensor = values, .key = random_key(kSeed, blocks[b].name), .deviation = deviation});
    state.encode(ctx, param, b, values);
  }
}

}  // namespace

void fill_weights(Instance& instance) {
  State& state = instance.state();
  Ctx& ctx = instance.ctx();
  const double deviation = instance.model().config().initializer_range;
  for (int p = 0; p < state.size(); ++p) {
    if (state.is_coded(p)) {
      encode_normal(instance, p, deviation);
      continue;
    }
    const bool norm = state.spec(p).shape.rank() == 1;
    fill_normal(ctx, {.tensor = state.primary(p),
                      .key = random_key(kSeed, state.spec(p).name),
                      .mean = norm ? 1.0 : 0.0,
                      .deviation = norm ? 0 : deviation});
    state.publish(ctx, p);
  }
  state.share_weights(ctx);
}

BatchLimits limits_of(const StepBench& bench) {
  const int64_t length = bench.sequence_length / bench.documents_per_row;
  return {.tokens = bench.tokens,
          .longest_document = length,
          .documents = bench.tokens / length,
          .micro_batches = bench.accumulate};
}

// Slot s of token t goes to expert (t * k + s) % E.
class BalancedRouting {
 public:
  BalancedRouting(Instance& instance, int64_t tokens, int64_t live)
      : host_("balanced routing", Device{}, bytes(instance, tokens), instance.host_memory()),
        device_("balanced routing", instance.ctx().device, bytes(instance, tokens)) {
    const MixtralConfig& config = instance.model().config();
    const int64_t k = config.num_experts_per_tok;
    const Tensor host = host_.allocate("experts", {tokens, k}, DType::kI32);
    experts_ = device_.allocate("experts", {tokens, k}, DType::kI32);
    for (int64_t i = 0; i < tokens * k; ++i)
      host.as<int32_t>()[i] = i < live * k ? static_cast<int32_t>(i % config.num_local_experts) : -1;
    copy(instance.ctx(), host, experts_);
    wait(instance.ctx());
  }

  const Tensor& experts() const { return experts_; }

 private:
  static size_t bytes(Instance& instance, int64_t tokens) {
    return align_up(static_cast<size_t>(tokens * instance.model().config().num_experts_per_tok) * sizeof(int32_t));
  }

  Arena host_, device_;
  Tensor experts_;
};

Steps::Steps(const StepBench& bench, Instance& instance)
    : bench_(bench),
      instance_(instance),
      ranks_(instance.share().ranks),
      runner_(instance, OptimizerSettings{.learning_rate = 1e-6}, kSeed) {
  const int64_t length = bench.sequence_length / bench.documents_per_row;
  for (int64_t i = 0; i < bench.accumulate; ++i) {
    const uint64_t seed = kSeed + i + instance.share().rank * bench.accumulate;
    const RandomBatch::Shape shape = {bench.tokens, length, bench.model.vocab_size};
    random_.push_back(std::make_unique<RandomBatch>(shape, seed, instance.host_memory()));
    batches_.push_back(random_.back()->batch());
    batches_.back().step_tokens *= ranks_;
  }
  if (bench.balanced) {
    routing_ = std::make_unique<BalancedRouting>(instance, batches_[0].ids.rows(), bench.tokens);
    runner_.saved().forced.assign(bench.model.num_hidden_layers, routing_->experts());
  }
}

Steps::~Steps() = default;

void Steps::run(const StepRunner::Requests& requests) {
  ++step_;
  if (bench_.mode == BenchMode::kForward) return runner_.forward(batches_);
  runner_.forward_backward(batches_, {.target_weight = static_cast<double>(targets()),
                                      .router = {RouterLossType::kHuggingface, bench_.model.router_aux_loss_coef}});
  if (bench_.mode == BenchMode::kForwardBackward) return instance_.state().gradients().finish(instance_.ctx());
  runner_.update({.step = step_,
                  .lr_share = 1,
                  .max_norm = bench_.max_grad_norm,
                  .with_norm = bench_.max_grad_norm > 0,
                  .requests = requests});
}

int64_t Steps::targets() const {
  int64_t sum = 0;
  for (const Batch& batch : batches_) sum += batch.target_tokens();
  return sum * ranks_;
}

void Steps::settle(double seconds) {
  Ctx& ctx = instance_.ctx();
  const std::vector<double> first = times(ctx, 1, [&] { run(); });
  const std::vector<std::string> all =
      gather_texts(ctx, *instance_.ranks().all, "time of a step", fmt::format("{}", first[0]));
  const double milliseconds = std::max(1e-3, std::stod(all[0]));
  for (int64_t left = static_cast<int64_t>(seconds * 1e3 / milliseconds); left > 0; --left) run();
  wait(ctx);
}

}  // namespace mixtune
