// NcclCommunicator: GPUs, one a process, over NCCL.
#pragma once

#include "parallel/communicator.h"
#include "parallel/store.h"

namespace mixtune {

// Connects the ranks. All call this, each with a GPU of its own; ctxs are then of that GPU, and tensors on it or in
// pinned memory. Everything runs in the GPU's lane (tensor/lane.h): no two operations of any group run at once, and so
// groups cannot wait for each other in a circle. Throws Error where NCCL does not open or finds no way between ranks.
std::unique_ptr<Communicator> make_nccl_communicator(Store& store, int rank, int size, Device device);

}  // namespace mixtune
