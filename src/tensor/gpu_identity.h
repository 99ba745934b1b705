// GpuIdentity: which GPU of all a device is.
#pragma once

#include <string>

namespace mixtune {

// Names in every process the same GPU, whatever its number there. A slice of a GPU (MIG) counts as one.
struct GpuIdentity {
  std::string uuid;  // 32 hexadecimal digits
  std::string bus;   // "0000:1b:00.0"
};

// Takes none of the GPU's memory. Throws Error where there is no such device.
GpuIdentity gpu_identity(int index);

}  // namespace mixtune
