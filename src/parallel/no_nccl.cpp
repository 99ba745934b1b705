// The functions of nccl_communicator.cpp in a build without CUDA.
#include "base/error.h"
#include "parallel/nccl_communicator.h"

namespace mixtune {

std::unique_ptr<Communicator> make_nccl_communicator(Store&, int, int, Device) {
  throw UserError("device", "this mixtune was built without CUDA",
                  "set device: cpu, or build on a machine with CUDA 13 (scripts/build)");
}

}  // namespace mixtune
