#include "bench/step.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <span>

#include "base/random.h"
#include "bench/measure.h"
#include "data/random_batch.h"
#include "kernels/fill.h"
#include "tensor/profiler.h"
#include "train/expert_load.h"
#include "train/memory_plan.h"
#include "train/step_runner.h"
#include "train/warm_up.h"

namespace mixtune {

namespace {

constexpr uint64_t kSeed = 1;
constexpr int kProfiledSteps = 3;

// On the device: in host memory (initialise_weights) a model of a bench's size takes minutes.
void fill_weights(Instance& instance) {
  State& state = instance.state();
  Ctx& ctx = instance.ctx();
  const double deviation = instance.model().config().initializer_range;
  for (int p = 0; p < state.size(); ++p) {
    const bool norm = state.spec(p).shape.rank() == 1;
    fill_normal(ctx, {.tensor = state.primary(p),
                      .key = random_key(kSeed, state.spec(p).name),
                      .mean = norm ? 1.0 : 0.0,
                      .deviation = norm ? 0 : deviation});
    state.publish(ctx, p);
  }
  state.share_weights(ctx);
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

// The steps of a bench, one after the other. Each rank has its own tokens.
class Steps {
 public:
  Steps(const StepBench& bench, Instance& instance)
      : bench_(bench),
        instance_(instance),
        ranks_(instance.share().ranks),
        runner_(instance, OptimizerSettings{}, kSeed) {
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

  void run() {
    ++step_;
    if (bench_.mode == BenchMode::kForward) return runner_.forward(batches_);
    runner_.forward_backward(batches_, {.target_weight = static_cast<double>(targets()),
                                        .router_coefficient = bench_.model.router_aux_loss_coef});
    if (bench_.mode == BenchMode::kForwardBackward) return instance_.state().gradients().finish(instance_.ctx());
    runner_.update({.step = step_,
                    .learning_rate = 1e-6,
                    .max_norm = bench_.max_grad_norm,
                    .with_norm = bench_.max_grad_norm > 0});
  }

  StepRunner::Result read() { return runner_.read(); }
  const Saved& saved() { return runner_.saved(); }
  // The targets of the losses that read() gives: the update adds up those of all ranks.
  int64_t targets_read() const { return bench_.mode == BenchMode::kStep ? targets() : targets() / ranks_; }
  // The targets on all ranks.
  int64_t targets() const {
    int64_t sum = 0;
    for (const Batch& batch : batches_) sum += batch.target_tokens();
    return sum * ranks_;
  }

 private:
  const StepBench& bench_;
  Instance& instance_;
  int64_t ranks_;
  StepRunner runner_;
  std::vector<std::unique_ptr<RandomBatch>> random_;
  std::vector<Batch> batches_;
  std::unique_ptr<BalancedRouting> routing_;
  int64_t step_ = 0;
};

// The rows of the largest expert over the mean. The step's numbers were read; its counts lie alone on the pinned stack.
double routing_imbalance(const Saved& saved) {
  double worst = 0;
  for (const LayerSaved& layer : saved.layers) {
    const std::span<const int32_t> counts(layer.dispatch.count.as<int32_t>(), layer.dispatch.count.rows());
    worst = std::max(worst, expert_imbalance(counts));
  }
  return worst;
}

// Runs steps for about this many seconds: as many on every rank.
void settle(Instance& instance, Steps& steps, double seconds) {
  Ctx& ctx = instance.ctx();
  const std::vector<double> first = times(ctx, 1, [&] { steps.run(); });
  const std::vector<std::string> all =
      gather_texts(ctx, *instance.ranks().all, "time of a step", fmt::format("{}", first[0]));
  const double milliseconds = std::max(1e-3, std::stod(all[0]));
  for (int64_t left = static_cast<int64_t>(seconds * 1e3 / milliseconds); left > 0; --left) steps.run();
  wait(ctx);
}

void add_ranks(StepBenchResult& result, const ParallelRecord& parallel) {
  result.routing_imbalance = parallel.expert_imbalance;
  for (const RankRecord& rank : parallel.ranks)
    if (rank.collective_milliseconds >= result.exposed.collective_milliseconds) result.exposed = rank;
}

// Each part's own time, without that of the parts inside it.
std::vector<StepBenchResult::Part> own_times(const std::vector<Profiler::Part>& parts, int steps) {
  std::map<std::string, double> sums;
  for (size_t i = 0; i < parts.size(); ++i) {
    double inside = 0;
    for (size_t j = i + 1; j < parts.size() && parts[j].depth > parts[i].depth; ++j)
      if (parts[j].depth == parts[i].depth + 1) inside += parts[j].duration;
    sums[parts[i].name] += (parts[i].duration - inside) / steps;
  }
  std::vector<StepBenchResult::Part> result;
  for (const auto& [name, milliseconds] : sums) result.push_back({name, milliseconds});
  std::ranges::sort(result, std::ranges::greater{}, &StepBenchResult::Part::milliseconds);
  return result;
}

std::vector<StepBenchResult::Part> profile(Ctx& ctx, Steps& steps) {
  Profiler profiler(ctx);
  ctx.profiler = &profiler;
  profiler.start();
  for (int i = 0; i < kProfiledSteps; ++i) {
    const Range range(ctx, "everything else");
    steps.run();
  }
  ctx.profiler = nullptr;
  return own_times(profiler.collect(ctx), kProfiledSteps);
}

size_t free_memory(Device device) {
  return device.type == DeviceType::kCuda ? gpu_info(device.index).free_memory : 0;
}

// `free_before`: the device's free memory when its ranks were connected and there was no instance yet.
void add_memory(StepBenchResult& result, Instance& instance, const BatchLimits& limits, size_t free_before) {
  const Stack& stack = instance.ctx().stack;
  const InstanceOptions& options = instance.options();
  result.state_bytes = instance.state().bytes();
  result.activation_bytes = stack.peak();
  if (!instance.ctx().like_gpu()) return;
  result.device_bytes =
      free_before - free_memory(options.device) - (stack.capacity() - stack.peak()) + instance.ranks().gpu_bytes;
  if (instance.state().is_training())
    result.planned_bytes = plan_memory(instance.model().config(), options, limits, kEvenRouting).total();
}

}  // namespace

StepBenchResult bench_step(const StepBench& bench) {
  InstanceOptions options = bench.options;
  options.purpose = bench.mode == BenchMode::kForward ? State::Purpose::kInference : State::Purpose::kTraining;
  const BatchLimits limits = {.tokens = bench.tokens,
                              .longest_document = bench.sequence_length / bench.documents_per_row,
                              .documents = bench.tokens / (bench.sequence_length / bench.documents_per_row),
                              .micro_batches = bench.accumulate};
  const size_t free_before = free_memory(options.device);
  Instance instance(bench.model, options);
  Ctx& ctx = instance.ctx();
  fill_weights(instance);
  StepBenchResult result;
  result.plans = warm_up(instance, limits);
  Steps steps(bench, instance);
  settle(instance, steps, bench.settle);

  const int64_t waits = device_waits(ctx);
  result.milliseconds = median(times(ctx, bench.steps, [&] { steps.run(); }));
  if (ctx.like_gpu())  // times() itself waits once
    result.waits_per_step = static_cast<double>(device_waits(ctx) - waits) / bench.steps - 1;
  const double tokens = static_cast<double>(bench.tokens * bench.accumulate);
  result.tokens_per_second = tokens / (result.milliseconds / 1e3);
  result.tflops = tokens *
                  model_flops_per_token(bench.model, limits.longest_document, bench.mode == BenchMode::kForward) /
                  (result.milliseconds * 1e9);
  const StepRunner::Result numbers = steps.read();
  result.loss = numbers.token_loss / static_cast<double>(steps.targets_read());
  result.recomputed_layers = numbers.recomputed;
  if (numbers.parallel)
    add_ranks(result, *numbers.parallel);
  else if (ctx.like_gpu())
    result.routing_imbalance = routing_imbalance(steps.saved());
  result.parts = profile(ctx, steps);
  result.late_plans = late_plans(ctx);
  add_memory(result, instance, limits, free_before);
  result.gemm_tflops = gemm_rate(ctx, instance.model().dtype(), std::min(bench.settle, 1.0));
  result.device = device_name(options.device);
  return result;
}

double model_flops_per_token(const MixtralConfig& c, int64_t length, bool forward_only) {
  const auto d = [](int64_t x) {
    return static_cast<double>(x);
  };
  const double h = d(c.hidden_size), q = d(c.query_size()), kv = d(c.kv_size());
  const double layer =
      h * (q + 2 * kv) + q * d(length) + q * h + 3 * d(c.num_experts_per_tok) * h * d(c.intermediate_size);
  return (forward_only ? 2 : 6) * (d(c.num_hidden_layers) * layer + h * d(c.vocab_size));
}

MixtralConfig mixtral_8x7b(int64_t layers) {
  return {.vocab_size = 32000,
          .hidden_size = 4096,
          .intermediate_size = 14336,
          .num_hidden_layers = layers,
          .num_attention_heads = 32,
          .num_key_value_heads = 8,
          .head_dim = 128,
          .num_local_experts = 8,
          .num_experts_per_tok = 2,
          .max_position_embeddings = 32768,
          .rope_theta = 1e6,
          .rms_norm_eps = 1e-5,
          .initializer_range = 0.02,
          .router_aux_loss_coef = 0.02};
}

}  // namespace mixtune
