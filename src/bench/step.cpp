#include "bench/step.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/median.h"
#include "bench/measure.h"
#include "bench/steps.h"
#include "model/operations.h"
#include "tensor/profiler.h"
#include "train/memory_plan.h"
#include "train/warm_up.h"

namespace mixtune {

namespace {

constexpr int kProfiledSteps = 3;

void add_ranks(StepBenchResult& result, const ParallelRecord& parallel) {
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
  result.state_bytes = instance.state().bytes() + instance.recipe_bytes();
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
  const BatchLimits limits = limits_of(bench);
  const size_t free_before = free_memory(options.device);
  Instance instance(bench.model, options);
  Ctx& ctx = instance.ctx();
  fill_weights(instance);
  StepBenchResult result;
  result.plans = warm_up(instance, limits);
  Steps steps(bench, instance);
  steps.settle(bench.settle);

  const int64_t waits = device_waits(ctx);
  result.milliseconds = median(times(ctx, bench.steps, [&] { steps.run(); }));
  if (ctx.like_gpu())  // times() itself waits once
    result.waits_per_step = static_cast<double>(device_waits(ctx) - waits) / bench.steps - 1;
  const StepRates rates = rates_of(bench, result.milliseconds);
  result.tokens_per_second = rates.tokens_per_second;
  result.tflops = rates.tflops;
  const StepRunner::Result numbers = steps.read();
  result.loss = numbers.token_loss / static_cast<double>(steps.targets_read());
  result.recomputed_layers = numbers.recomputed;
  if (numbers.parallel) add_ranks(result, *numbers.parallel);
  if (numbers.routers) result.routing_imbalance = std::ranges::max(numbers.routers->layer_imbalance);
  result.parts = profile(ctx, steps);
  result.late_plans = late_plans(ctx);
  add_memory(result, instance, limits, free_before);
  result.gemm_tflops = gemm_rate(ctx, instance.model().dtype(), std::min(bench.settle, 1.0));
  result.device = device_name(options.device);
  return result;
}

StepRates rates_of(const StepBench& bench, double milliseconds) {
  const ModelOperations operations = bench.mode == BenchMode::kForward
                                         ? forward_operations(bench.model)
                                         : training_operations(bench.model, bench.options.freeze, bench.options.lora);
  const auto tokens = static_cast<double>(bench.tokens * bench.accumulate);
  const auto length = static_cast<double>(bench.sequence_length / bench.documents_per_row);
  return {tokens / (milliseconds / 1e3), operations.of(tokens, tokens * length) / (milliseconds * 1e9)};
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
