// Whether the ranks of a job compute on GPUs of their own.
#pragma once

#include <string>

#include "parallel/store.h"

namespace mixtune {

struct OwnGpu {
  std::string id;     // the same in every process that uses this GPU, and in no other; "": nobody knows
  std::string place;  // for messages: "GPU 0000:1b:00.0 of node03"
};

// All `size` ranks call this, before they take anything of their GPUs. Throws UserError, on all of them, where two
// ranks have the same: it names the first two, and the GPU.
void check_own_gpu(Store& store, int rank, int size, const OwnGpu& gpu);

}  // namespace mixtune
