// check_own_gpu: whether the ranks of a job compute on GPUs of their own.
#pragma once

#include <string>

#include "parallel/store.h"

namespace mixtune {

struct OwnGpu {
  std::string id;     // the same in every process that uses this GPU, and in no other; "": unknown
  std::string place;  // for messages: "GPU 0000:1b:00.0 of node03"
};

// Throws UserError, on all ranks, where two have the same GPU: it names the first two, and the GPU. All `size` ranks
// call this, before they take anything of their GPUs.
void check_own_gpu(Store& store, int rank, int size, const OwnGpu& gpu);

}  // namespace mixtune
