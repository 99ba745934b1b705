// GpuPeak: what a GPU's vendor says that its matrix products reach at most.
#pragma once

#include <string>
#include <string_view>

namespace mixtune {

// TFLOP/s, dense (without 2:4 sparsity), sums in fp32. 0: the GPU has no such products.
struct GpuPeak {
  std::string_view driver_name;  // GpuInfo::name
  std::string_view name;         // as people say it
  double bf16, fp8;
};

// Null where mixtune does not know it, as of a slice of a GPU (MIG). Compares whole names: a card of nearly the same
// name may be another.
const GpuPeak* gpu_peak(std::string_view driver_name);

}  // namespace mixtune
