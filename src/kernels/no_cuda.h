// Stubs call this in a build without CUDA: no Ctx has a Gpu there, so no CUDA half is ever called.
#pragma once

#include "base/error.h"

namespace mixtune::cuda {

[[noreturn]] inline void no_cuda() {
  MT_CHECK(!"an op was called on a GPU in a build without CUDA");
  throw;
}

}  // namespace mixtune::cuda
