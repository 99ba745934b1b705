#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include <CLI/CLI.hpp>

#include "base/library.h"
#include "base/log.h"
#include "bench/measure.h"
#include "cli/command.h"
#include "cli/describe_host.h"

namespace mixtune {

namespace {

void print_row(std::string_view name, std::string_view value) {
  fmt::print("{:<10} {}\n", name, value);
}

// Part `index` of a version, "9.19.0".
int number(std::string_view version, int index) {
  for (; index > 0; --index) version.remove_prefix(std::min(version.find('.'), version.size() - 1) + 1);
  return std::atoi(std::string(version).c_str());
}

std::string cuda_version(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

// Opens it, as a run would; `oldest` is the version from which on it is used.
void report_library(CudaLibrary which, std::string_view oldest, std::string_view without) {
  const std::string_view name = library_name(which);
  if (!find_library(which)) return print_row(name, fmt::format("not found: {}", without));
  try {
    const Library library = open_library(which);
    const std::string version = library_version(which, library);
    const bool old =
        std::pair(number(version, 0), number(version, 1)) < std::pair(number(oldest, 0), number(oldest, 1));
    print_row(name, fmt::format("{} ({}){}", version, library.path(),
                                old ? fmt::format(": older than {}: {}", oldest, without) : ""));
  } catch (const Error& error) {
    print_row(name, error.what());
  }
}

void measure(Device device) {
  const auto gpu = make_gpu(device, {});
  Stack stack("measurements", device, size_t{1} << 30);
  Ctx ctx{device, stack, stack, gpu.get()};
  print_row("copy", fmt::format("{:.2f} TB/s, reads and writes", copy_rate(ctx)));
  print_row("GEMM", fmt::format("{:.0f} TFLOP/s, bf16", gemm_rate(ctx, DType::kBF16, 0)));
}

void run_doctor() {
  print_row("build", built_with_cuda() ? "with CUDA" : "without CUDA: mixtune computes on the CPU alone");
  for (const auto& [name, value] : describe_host()) print_row(name, value);
  if (!built_with_cuda()) return;
  const int count = gpu_count();
  if (count == 0) {
    print_row("GPU", "none that CUDA can use: is there an NVIDIA driver for CUDA 13 (nvidia-smi)?");
    return;
  }
  for (int i = 0; i < count; ++i) {
    const GpuInfo info = gpu_info(i);
    if (i == 0) {
      print_row("driver", fmt::format("CUDA {}", cuda_version(info.driver)));
      print_row("runtime", fmt::format("CUDA {}{}", cuda_version(info.runtime),
                                       info.driver < info.runtime ? ": newer than the driver; update the driver" : ""));
      report_library(CudaLibrary::kCublasLt, "13.0", "matrix products need it; install CUDA 13 or PyTorch for it");
      report_library(CudaLibrary::kCudnn, "9.19", "attention uses mixtune's own kernels, which are slower");
      report_library(CudaLibrary::kNccl, "2.28", "training on several GPUs needs it");
    }
    print_row(fmt::format("GPU {}", i),
              fmt::format("{}, sm_{}, {} multiprocessors, {} free of {}", info.name, info.compute_capability,
                          info.multiprocessors, format_bytes(info.free_memory), format_bytes(info.memory)));
  }
  measure({DeviceType::kCuda, 0});
}

}  // namespace

Command add_doctor(CLI::App& program) {
  CLI::App* app = program.add_subcommand("doctor", "Check this machine: GPUs, driver, libraries, a copy and a product");
  return {app, run_doctor};
}

}  // namespace mixtune
