// Memory from CUDA: a device's, or the host's and pinned (device.type kCpu). It is zero when allocate returns,
// whichever stream uses it first.
#pragma once

#include <string>

#include "tensor/tensor.h"

namespace mixtune::cuda {

void* allocate(const std::string& name, Device device, size_t bytes);
void release(Device device, void* data);

}  // namespace mixtune::cuda
