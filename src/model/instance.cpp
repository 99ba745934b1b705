#include "model/instance.h"

#include <fmt/format.h>

#include "base/error.h"
#include "kernels/attention/attention.h"
#include "kernels/moe/router.h"

namespace mixtune {

namespace {

// Host memory for what the host reads of one micro-batch: counts of each layer's experts, losses.
constexpr size_t kPinnedBytes = size_t{4} << 20;

// Host pages of what is `taken`, State and the cache, are not taken yet, so they still count as available; a little is
// left to everything else.
size_t what_is_left(size_t taken, Device device) {
  const size_t available = available_memory(device);
  if (device.type == DeviceType::kMeta) return available;
  if (device.type == DeviceType::kCuda) return available > kGpuLibraryBytes ? available - kGpuLibraryBytes : 1;
  return available > taken ? (available - taken) / 100 * 95 : 1;
}

// Keeps what it can of the weights that it is to multiply.
std::unique_ptr<Recipe> make_keeping_recipe(const InstanceOptions& options, const ModelParams& params,
                                            const State& state) {
  std::vector<Recipe::Weight> weights;
  for (const LayerParams& layer : params.layers)
    for (const int param : {layer.qkv, layer.attention_out, layer.gate_up, layer.down})
      weights.emplace_back(state.weight(param), param, state.version(param));
  auto recipe = make_recipe(options.recipe);
  recipe->keep(weights, state.is_training());
  return recipe;
}

// A pinned stack beside a GPU; one of that size on kMeta; none for the CPU.
std::unique_ptr<Stack> make_host_stack(Device device) {
  if (device.type == DeviceType::kCpu) return nullptr;
  return std::make_unique<Stack>("host side", Device{}, kPinnedBytes,
                                 device.type == DeviceType::kCuda ? HostMemory::kPinned : HostMemory::kPageable);
}

void check_limits(std::string_view key, int64_t value, int64_t most) {
  if (value > most)
    throw UserError(fmt::format("config.json: {}", key), fmt::format("{}, and on a GPU it is at most {}", value, most),
                    "set device: cpu");
}

// Throws for a model that the GPU's kernels cannot compute.
const MixtralConfig& checked(const MixtralConfig& config, Device device) {
  if (device.type == DeviceType::kCpu) return config;
  check_limits("num_local_experts", config.num_local_experts, kMaxGpuExperts);
  check_limits("num_experts_per_tok", config.num_experts_per_tok, kMaxGpuExpertsPerToken);
  check_limits("head_dim", config.head_dim, kMaxGpuHeadDim);
  return config;
}

}  // namespace

Instance::Instance(const MixtralConfig& config, const InstanceOptions& options)
    : Instance(config,
               make_layout(checked(config, options.device), options.ranks->grid.experts(config.num_local_experts),
                           options.freeze, options.lora),
               options) {}

Instance::Instance(const MixtralConfig& config, ModelLayout layout, const InstanceOptions& options)
    : options_(options),
      gpu_(options.device.type == DeviceType::kCuda ? make_gpu(options.device, options.gpu) : nullptr),
      state_(std::move(layout.specs), options.device, options.types, options.purpose,
             {.dense = ranks().dense.get(),
              .experts = ranks().experts.get(),
              .shard_optimizer = options.zero_stage > 0 && ranks().grid.world > 1}),
      recipe_(make_keeping_recipe(options, layout.params, state_)),
      dispatcher_(ranks().expert_parallel->size() > 1
                      ? make_exchange_dispatcher(config.num_local_experts, *ranks().expert_parallel)
                      : make_local_dispatcher(config.num_local_experts)),
      expert_bias_(config, options.device),
      cache_(config, options.device, options.types.weights, options.cache),
      model_(config, layout.params, state_, *recipe_, *dispatcher_,
             {.dtype = options.types.weights,
              .recompute = options.recompute,
              .capacity = options.capacity,
              .expert_bias = expert_bias_.on_device(),
              .router_noise = options.router_noise,
              .cache = &cache_,
              .sinkhorn = options.sinkhorn}),
      stack_("activations", options.device,
             options.stack_bytes > 0 ? options.stack_bytes
                                     : what_is_left(state_.bytes() + cache_.bytes(), options.device)),
      host_stack_(make_host_stack(options.device)),
      ctx_{options.device, stack_, host_stack_ ? *host_stack_ : stack_, gpu_.get()} {
  if (expert_bias_) expert_bias_.upload(ctx_);
  if (gpu_ && poisons_released_memory()) poison_released(stack_, *gpu_);
}

}  // namespace mixtune
