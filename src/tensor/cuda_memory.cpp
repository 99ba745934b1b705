#include "tensor/cuda_memory.h"

#include <fmt/format.h>

#include <cstring>

#include "base/log.h"
#include "tensor/gpu.h"

namespace mixtune::cuda {

void* allocate(const std::string& name, Device device, size_t bytes) {
  void* data = nullptr;
  if (device.type == DeviceType::kCpu) {
    check_cuda(cudaMallocHost(&data, bytes), name.c_str());
    std::memset(data, 0, bytes);
    return data;
  }
  check_cuda(cudaSetDevice(device.index), name.c_str());
  const cudaError_t status = cudaMalloc(&data, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw Error("out of memory",
                fmt::format("{} needs {}, the GPU has {} free", name, format_bytes(bytes),
                            format_bytes(gpu_info(device.index).free_memory)),
                "see what else runs on this GPU (nvidia-smi), or use a smaller model or a larger GPU");
  }
  check_cuda(status, name.c_str());
  // Device memory is zeroed beside the host, in the legacy stream, for which our streams do not wait.
  check_cuda(cudaMemsetAsync(data, 0, bytes, cudaStreamLegacy), name.c_str());
  check_cuda(cudaStreamSynchronize(cudaStreamLegacy), name.c_str());
  return data;
}

void release(Device device, void* data) {
  if (device.type == DeviceType::kCpu)
    cudaFreeHost(data);
  else
    cudaFree(data);
}

}  // namespace mixtune::cuda
