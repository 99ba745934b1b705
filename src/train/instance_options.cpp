#include "train/instance_options.h"

#include <fmt/format.h>

#include "base/cache_folder.h"

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

// Checks the keys that mean something in bf16 alone.
void check_bf16_keys(const Config& config) {
  const ComputeSettings& compute = config.compute;
  if (compute.precision == Precision::kBf16) {
    if (config.machine.device == DeviceChoice::kCpu) refuse_bf16_on_cpu(config);
    if (compute.gradient_dtype == StateDType::kBf16 && config.batch.gradient_accumulation_steps > 1)
      refuse(config, "gradient_dtype", "bf16 gradients lose what further micro-batches add",
             "set it to fp32, or gradient_accumulation_steps to 1");
    return;
  }
  if (compute.gradient_dtype == StateDType::kBf16)
    refuse(config, "gradient_dtype", "is for precision: bf16", "set it to fp32");
  if (compute.optimizer_state_dtype == StateDType::kBf16)
    refuse(config, "optimizer_state_dtype", "is for precision: bf16", "set it to fp32");
  if (compute.master_weights == MasterWeights::kNone)
    refuse(config, "master_weights", "is for precision: bf16; fp32 weights are their own masters", "remove it");
}

bool is_eight_bit(const ComputeSettings& compute) {
  return compute.precision == Precision::kFp8 || compute.precision == Precision::kMxfp8;
}

void check_eight_bit_keys(const Config& config) {
  const ComputeSettings& compute = config.compute;
  if (compute.fp8_scaling != Fp8Scaling::kBlock && compute.precision != Precision::kFp8)
    refuse(config, "fp8_scaling", "is for precision: fp8", "remove it");
  if (!compute.fp8_power_of_two_scales && compute.precision != Precision::kFp8)
    refuse(config, "fp8_power_of_two_scales",
           "is for precision: fp8; the scales of mxfp8 are powers of two by definition", "remove it");
}

void check_for_gpu(const Config& config) {
  if (is_eight_bit(config.compute))
    refuse(config, "precision", "8-bit products are computed on the CPU alone so far",
           "set it to bf16, or device: cpu");
}

RecipeOptions recipe_options(const ComputeSettings& compute) {
  RecipeOptions options = {.experts = compute.experts_implementation,
                           .power_of_two_scales = compute.fp8_power_of_two_scales};
  if (compute.precision == Precision::kMxfp8)
    options.eight_bit = EightBitScaling::kMx;
  else if (compute.precision == Precision::kFp8)
    options.eight_bit = compute.fp8_scaling == Fp8Scaling::kBlock ? EightBitScaling::kBlock : EightBitScaling::kTensor;
  return options;
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

// What does not depend on the device, which is kMeta here.
InstanceOptions options_without_device(const Config& config, const Ranks& ranks) {
  const ComputeSettings& compute = config.compute;
  check_bf16_keys(config);
  check_eight_bit_keys(config);
  const bool bf16 = compute.precision == Precision::kBf16;
  InstanceOptions options = {.device = {DeviceType::kMeta},
                             .purpose = State::Purpose::kTraining,
                             .recompute = compute.recompute,
                             .recipe = recipe_options(compute),
                             .gpu = {.deterministic = config.machine.deterministic, .plan_cache = cache_folder()}};
  options.ranks = &ranks;
  options.zero_stage = static_cast<int>(config.parallel.zero_stage);
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

InstanceOptions planned_options(const Config& config, const Ranks& ranks) {
  check_for_gpu(config);
  return options_without_device(config, ranks);
}

InstanceOptions instance_options(const Config& config, State::Purpose purpose, const Ranks& ranks) {
  InstanceOptions options = options_without_device(config, ranks);
  options.purpose = purpose;
  const Device device = device_of(config, ranks);
  if (config.machine.device == DeviceChoice::kCuda && !built_with_cuda())
    refuse(config, "device", "this mixtune was built without CUDA", "set it to cpu or auto, or build with CUDA 13");
  if (config.machine.device == DeviceChoice::kCuda && gpu_count() == 0)
    refuse(config, "device", "there is no GPU that CUDA can use", "run 'mixtune doctor', or set it to cpu or auto");
  if (config.compute.precision == Precision::kBf16 && device.type == DeviceType::kCpu) refuse_bf16_on_cpu(config);
  if (device.type == DeviceType::kCuda) check_for_gpu(config);
  options.device = device;
  options.gpu.patience = ranks.patience;
  options.gpu.give_up = ranks.give_up;
  options.gpu.advanced = [&ranks] {
    ranks.advance();
  };
  return options;
}

std::string describe(const InstanceOptions& options) {
  const std::string device = options.device.type == DeviceType::kCuda ? gpu_info(options.device.index).name : "the CPU";
  if (options.recipe.eight_bit) return fmt::format("{}, fp32 with {}", device, name_of(*options.recipe.eight_bit));
  if (options.types.weights == DType::kF32) return fmt::format("{}, fp32", device);
  if (options.purpose == State::Purpose::kInference) return fmt::format("{}, bf16", device);
  return fmt::format("{}, bf16 with {}, {} gradients, {} moments", device,
                     options.types.masters ? "fp32 master weights" : "stochastically rounded weights",
                     dtype_name(options.types.gradients), dtype_name(options.types.moments));
}

}  // namespace mixtune
