#include "train/throughput.h"

#include <fmt/format.h>

#include "metrics/format_numbers.h"
#include "tensor/gpu_peak.h"

namespace mixtune {

namespace {

Peak peak_of(const InstanceOptions& options) {
  if (options.device.type != DeviceType::kCuda) return {};
  return peak_of(gpu_info(options.device.index).name, options);
}

}  // namespace

Peak peak_of(const std::string& gpu, const InstanceOptions& options) {
  const GpuPeak* known = gpu_peak(gpu);
  if (!known || options.types.weights != DType::kBF16) return {};
  const bool fp8 = options.recipe.multiplies_codes;
  const double tflops = fp8 ? known->fp8 : known->bf16;
  if (tflops == 0) return {};
  return {tflops, fmt::format("{} TFLOP/s, {} dense, {}", grouped(tflops), fp8 ? "fp8" : "bf16", known->name)};
}

Throughput::Throughput(const Instance& instance)
    : operations_(training_operations(instance.model().config(), instance.options().freeze, instance.options().lora)),
      devices_(static_cast<double>(instance.ranks().grid.world)),
      peak_(peak_of(instance.options())) {}

void Throughput::set(StepRecord& record, const Step& rows, double seconds) const {
  const auto tokens = static_cast<double>(rows.live_tokens);
  record.milliseconds = seconds * 1e3;
  record.tokens_per_second = tokens / seconds;
  record.model_tflops = operations_.of(tokens, rows.squared_lengths) / (seconds * devices_ * 1e12);
  record.mfu = peak_.tflops > 0 ? record.model_tflops / peak_.tflops : 0;
}

}  // namespace mixtune
