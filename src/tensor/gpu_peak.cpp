#include "tensor/gpu_peak.h"

#include <algorithm>
#include <iterator>

namespace mixtune {

namespace {

// NVIDIA's data sheets and, of the RTX and L cards, its architecture white papers (the appendices' tables of peak rates
// with FP32 accumulate): A100 data sheet 2021; H100, H200 and GH200 data sheets 2024 and L40S 2023, whose figures with
// sparsity are halved; DGX and HGX B200 and B300, GB200 and GB300 NVL72 data sheets 2025, by the number of GPUs,
// halved; "NVIDIA Ada GPU Architecture" 2023; "NVIDIA RTX Blackwell GPU Architecture" 2025.
constexpr GpuPeak kPeaks[] = {
    {"NVIDIA A100-SXM4-40GB", "A100 SXM", 312, 0},
    {"NVIDIA A100-SXM4-80GB", "A100 SXM", 312, 0},
    {"NVIDIA A100-PCIE-40GB", "A100 PCIe", 312, 0},
    {"NVIDIA A100-PCIE-80GB", "A100 PCIe", 312, 0},
    {"NVIDIA A100 80GB PCIe", "A100 PCIe", 312, 0},
    {"NVIDIA H100 80GB HBM3", "H100 SXM", 989, 1979},
    {"NVIDIA H100 PCIe", "H100 PCIe", 756, 1513},
    {"NVIDIA H100 NVL", "H100 NVL", 835, 1671},
    {"NVIDIA H200", "H200", 989, 1979},
    {"NVIDIA H200 NVL", "H200 NVL", 835, 1671},
    {"NVIDIA GH200 480GB", "GH200", 989, 1979},
    {"NVIDIA GH200 120GB", "GH200", 989, 1979},
    {"NVIDIA GH200 144G HBM3e", "GH200", 989, 1979},
    {"NVIDIA B200", "B200", 2250, 4500},
    {"NVIDIA GB200", "GB200", 2500, 5000},
    {"NVIDIA B300 SXM6 AC", "B300", 2250, 4500},
    {"NVIDIA GB300", "GB300", 2500, 5000},
    {"NVIDIA L40S", "L40S", 362, 733},
    {"NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada", 364, 728},
    {"NVIDIA GeForce RTX 4090", "RTX 4090", 165, 330},
    {"NVIDIA GeForce RTX 5090", "RTX 5090", 209.5, 419},
};

}  // namespace

const GpuPeak* gpu_peak(std::string_view driver_name) {
  const auto found = std::ranges::find(kPeaks, driver_name, &GpuPeak::driver_name);
  return found == std::end(kPeaks) ? nullptr : found;
}

}  // namespace mixtune
