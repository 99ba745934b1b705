// Which of all GPUs one is.
#pragma once

#include <string>

namespace mixtune {

// The same in every process that uses the GPU, whatever number it has there. A slice of a GPU (MIG) is one.
struct GpuIdentity {
  std::string uuid;  // 32 hexadecimal digits
  std::string bus;   // "0000:1b:00.0"
};

// Takes nothing of the GPU. Throws Error where there is no such device.
GpuIdentity gpu_identity(int index);

}  // namespace mixtune
