#include "train/instance_options.h"

#include <fmt/format.h>

#include "base/cache_folder.h"
#include "config/keys.h"
#include "config/router_losses.h"
#include "kernels/eight_bit/coded_gemm.h"
#include "train/lora_options.h"

namespace mixtune {

namespace {

DType dtype_of(StateDType dtype) {
  return dtype == StateDType::kBf16 ? DType::kBF16 : DType::kF32;
}

[[noreturn]] void refuse(const Config& config, std::string_view key, std::string_view what, std::string_view mend) {
  throw UserError(config.where(key), what, mend);
}

[[noreturn]] void refuse_bf16_on_cpu(const Config& config) {
  refuse(config, "precision", "bf16 needs a GPU, and the device is the CPU", "set it to fp32");
}

bool is_eight_bit(const ComputeSettings& compute) {
  return compute.precision == Precision::kFp8 || compute.precision == Precision::kMxfp8;
}

// Whether weights and activations are bf16: on a GPU beside 8-bit products too, which the CPU has beside fp32.
bool is_bf16(const ComputeSettings& compute, DeviceType device) {
  return compute.precision == Precision::kBf16 || (is_eight_bit(compute) && device != DeviceType::kCpu);
}

constexpr std::string_view kForBf16 = "is for precision: bf16, or on a GPU fp8 and mxfp8";

// Checks the keys that mean something in bf16 alone.
void check_bf16_keys(const Config& config, DeviceType device) {
  const ComputeSettings& compute = config.compute;
  if (is_bf16(compute, device)) {
    if (compute.gradient_dtype == StateDType::kBf16 && config.batch.gradient_accumulation_steps > 1)
      refuse(config, "gradient_dtype", "bf16 gradients lose what further micro-batches add",
             "set it to fp32, or gradient_accumulation_steps to 1");
    return;
  }
  if (compute.gradient_dtype == StateDType::kBf16) refuse(config, "gradient_dtype", kForBf16, "set it to fp32");
  if (compute.optimizer_state_dtype == StateDType::kBf16)
    refuse(config, "optimizer_state_dtype", kForBf16, "set it to fp32");
  if (compute.master_weights == MasterWeights::kNone)
    refuse(config, "master_weights", fmt::format("{}; fp32 weights are their own masters", kForBf16), "remove it");
}

void check_eight_bit_keys(const Config& config) {
  const ComputeSettings& compute = config.compute;
  if (compute.fp8_scaling != Fp8Scaling::kBlock && compute.precision != Precision::kFp8)
    refuse(config, "fp8_scaling", "is for precision: fp8", "remove it");
  if (!compute.fp8_power_of_two_scales && compute.precision != Precision::kFp8)
    refuse(config, "fp8_power_of_two_scales",
           "is for precision: fp8; the scales of mxfp8 are powers of two by definition", "remove it");
}

int compute_capability(Device device) {
  constexpr int kHopper = 90, kNone = 0;
  if (device.type == DeviceType::kMeta) return kHopper;  // a plan supposes it
  return device.type == DeviceType::kCuda ? gpu_compute_capability(device.index) : kNone;
}

std::string_view name_of(EightBitScaling scaling) {
  switch (scaling) {
    case EightBitScaling::kMx:
      return "mxfp8 products";
    case EightBitScaling::kBlock:
      return "fp8 products, scaled by block";
    case EightBitScaling::kTensor:
      return "fp8 products, scaled by tensor";
  }
  MT_CHECK(false);
}

std::string describe_types(const InstanceOptions& options) {
  if (options.types.weights == DType::kF32) return "fp32";
  if (options.purpose == State::Purpose::kInference) return "bf16";
  return fmt::format("bf16 with {}, {} gradients, {} moments",
                     options.types.masters ? "fp32 master weights" : "stochastically rounded weights",
                     dtype_name(options.types.gradients), dtype_name(options.types.moments));
}

// "; fp8 products, scaled by block, emulated in bf16"
std::string describe_products(const InstanceOptions& options) {
  const RecipeOptions& recipe = options.recipe;
  if (!recipe.eight_bit) return "";
  return fmt::format("; {}{}", name_of(*recipe.eight_bit),
                     recipe.multiplies_codes ? "" : fmt::format(", emulated in {}", dtype_name(options.types.weights)));
}

Capacity capacity_of(const Config& config) {
  const RouterSettings& router = config.router;
  const int64_t full = config.batch.per_device_train_batch_size * config.data.max_seq_length;
  return {.factor = router.moe_expert_capacity_factor,
          .policy = router.moe_token_drop_policy,
          .padded_tokens = router.moe_pad_expert_input_to_capacity ? full : 0};
}

void check_lora(const Config& config, DeviceType device) {
  if (config.adapter.base() != BasePrecision::kAuto) {
    if (is_eight_bit(config.compute))
      refuse(config, "precision", "products in 8 bits of weights that base_precision holds are not supported",
             "set it to bf16 or fp32");
    if (!is_bf16(config.compute, device) && device != DeviceType::kCpu)
      refuse(config, "precision", "on a GPU weights that base_precision holds are computed with in bf16",
             "set it to bf16");
  }
  if (!config.adapter.is_set()) return;
  if (is_eight_bit(config.compute))
    refuse(config, "precision", "adapters beside products in 8 bits are not supported yet", "set it to bf16 or fp32");
  if (device != DeviceType::kCpu && config.adapter.lora_r % 8 != 0)
    refuse(config, "lora_r", "on a GPU it is a multiple of 8", "set it to one, such as 16");
  if (config.compute.master_weights == MasterWeights::kNone)
    refuse(config, "master_weights", "adapters are trained in fp32", "remove it");
  if (config.model.resize_vocabulary)
    refuse(config, "resize_vocabulary", "an adapter has no rows of the vocabulary", "set it to false");
  if (config.output.save_dtype == SaveDType::kBf16)
    refuse(config, "save_dtype", "adapters are saved in fp32, as they are trained", "remove it");
  for (const char* key : {"moe_router_topk", "moe_router_score_function", "moe_router_pre_softmax",
                          "moe_router_topk_scaling_factor", "moe_router_enable_expert_bias"})
    if (is_changed(config, key))
      refuse(config, key, "an adapter has no config.json to say so in", "remove it: the router is the base's");
  if (uses_sinkhorn(config.router))
    refuse(config, "moe_router_load_balancing_type",
           "sinkhorn weighs experts in its own way, and an adapter has no config.json to say so in",
           "set it to none: the router is the base's");
}

void check_cuda_graphs(const Config& config, DeviceType device, const Ranks& ranks) {
  if (!config.compute.cuda_graphs) return;
  if (ranks.grid.world > 1)
    refuse(config, "cuda_graphs", "a graph of what ranks exchange is not supported", "train on one rank, or remove it");
  if (device == DeviceType::kCpu) refuse(config, "cuda_graphs", "the device is the CPU", "remove it");
  if (!config.router.moe_pad_expert_input_to_capacity)
    refuse(config, "cuda_graphs", "the host waits for the experts' numbers of rows",
           "set moe_pad_expert_input_to_capacity, or remove it");
}

// A training on `device`; kMeta stands for a GPU.
InstanceOptions options_on(const Config& config, Device device, const Ranks& ranks) {
  const ComputeSettings& compute = config.compute;
  check_bf16_keys(config, device.type);
  check_eight_bit_keys(config);
  const bool bf16 = is_bf16(compute, device.type);
  InstanceOptions options = {.device = device,
                             .purpose = State::Purpose::kTraining,
                             .recompute = compute.recompute,
                             .recipe = recipe_options(config, compute_capability(device)),
                             .gpu = {.deterministic = config.machine.deterministic, .plan_cache = cache_folder()}};
  options.ranks = &ranks;
  options.zero_stage = static_cast<int>(config.parallel.zero_stage);
  options.freeze = freeze_of(config);
  options.lora = lora_of(config);
  check_lora(config, device.type);
  check_cuda_graphs(config, device.type, ranks);
  options.capacity = capacity_of(config);
  options.router_noise = {.jitter = config.router.moe_input_jitter_eps.value_or(0),
                          .draws_experts = config.router.moe_router_force_load_balancing};
  options.sinkhorn = uses_sinkhorn(config.router);
  options.cuda_graphs = compute.cuda_graphs;
  options.types.weights = bf16 ? DType::kBF16 : DType::kF32;
  options.types.gradients = dtype_of(compute.gradient_dtype);
  options.types.moments = dtype_of(compute.optimizer_state_dtype);
  options.types.masters = bf16 && compute.master_weights == MasterWeights::kFp32;
  return options;
}

}  // namespace

Device choose_device(DeviceChoice choice, int local_rank) {
  if (choice == DeviceChoice::kCpu) return {};
  const int count = gpu_count();
  if (count == 0 && choice == DeviceChoice::kAuto) return {};
  if (count > 1 && local_rank >= count)
    throw UserError("device", fmt::format("rank {} of this machine has no GPU: there are {}", local_rank, count),
                    "start at most one rank for each GPU, or set device: cpu");
  return {DeviceType::kCuda, count > 1 ? local_rank : 0};
}

Device device_of(const Config& config, const Ranks& ranks) {
  return ranks.device ? *ranks.device : choose_device(config.machine.device);
}

RecipeOptions recipe_options(const Config& config, int compute_capability) {
  const ComputeSettings& compute = config.compute;
  RecipeOptions options = {.experts = compute.experts_implementation,
                           .power_of_two_scales = compute.fp8_power_of_two_scales};
  if (compute.precision == Precision::kMxfp8)
    options.eight_bit = EightBitScaling::kMx;
  else if (compute.precision == Precision::kFp8)
    options.eight_bit = compute.fp8_scaling == Fp8Scaling::kBlock ? EightBitScaling::kBlock : EightBitScaling::kTensor;
  options.multiplies_codes = options.eight_bit && options.eight_bit != EightBitScaling::kTensor &&
                             has_coded_products(compute_capability, scale_rule(options));
  return options;
}

Freeze freeze_of(const Config& config) {
  return {config.optimizer.freeze, config.where("freeze")};
}

void choose_precision(Config& config, const MixtralConfig& model, DeviceType device) {
  if (config.origins.contains("precision")) return;
  const bool bf16 = device == DeviceType::kCuda && model.dtype == "bfloat16";
  config.compute.precision = bf16 ? Precision::kBf16 : Precision::kFp32;
}

InstanceOptions planned_options(const Config& config, const Ranks& ranks) {
  if (config.compute.precision == Precision::kBf16 && config.machine.device == DeviceChoice::kCpu)
    refuse_bf16_on_cpu(config);
  return options_on(config, {DeviceType::kMeta}, ranks);
}

InstanceOptions instance_options(const Config& config, State::Purpose purpose, const Ranks& ranks) {
  if (config.machine.device == DeviceChoice::kCuda && !built_with_cuda())
    refuse(config, "device", "this mixtune was built without CUDA", "set it to cpu or auto, or build with CUDA 13");
  if (config.machine.device == DeviceChoice::kCuda && gpu_count() == 0)
    refuse(config, "device", "there is no GPU that CUDA can use", "run 'mixtune doctor', or set it to cpu or auto");
  const Device device = device_of(config, ranks);
  InstanceOptions options = options_on(config, device, ranks);
  if (config.compute.precision == Precision::kBf16 && device.type == DeviceType::kCpu) refuse_bf16_on_cpu(config);
  options.purpose = purpose;
  options.gpu.patience = ranks.patience;
  options.gpu.give_up = ranks.give_up;
  options.gpu.advanced = [&ranks] {
    ranks.advance();
  };
  return options;
}

std::string untried(const RecipeOptions& recipe) {
  if (!recipe.multiplies_codes || recipe.eight_bit != EightBitScaling::kMx) return "";
  return "mixtune's products of mxfp8 codes were never run on a Blackwell GPU, as this one is: hold the first losses "
         "against those of precision: bf16, and please report what you see";
}

std::string describe(const InstanceOptions& options) {
  const std::string device = options.device.type == DeviceType::kCuda ? gpu_info(options.device.index).name : "the CPU";
  return fmt::format("{}, {}{}", device, describe_types(options), describe_products(options));
}

}  // namespace mixtune
