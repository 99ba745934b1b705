// Any text as what bitsandbytes says of a tensor in 4 bits: refused with a UserError, or a tensor that could be.
#include <cmath>
#include <cstdlib>

#include "base/error.h"
#include "checkpoint/quant_state.h"

using namespace mixtune;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const QuantState state = parse_quant_state({reinterpret_cast<const char*>(data), size}, "fuzz");
    int64_t elements = 1;
    for (int dim = 0; dim < state.shape.rank(); ++dim) {
      if (state.shape[dim] < 1 || elements > (int64_t{1} << 48) / state.shape[dim]) abort();
      elements *= state.shape[dim];
    }
    if (elements != state.shape.elements() || elements >= int64_t{1} << 48) abort();
    if (state.block < 32 || state.block > 4096 || (state.block & (state.block - 1)) != 0) abort();
    if (state.blocks() * state.block < elements || (state.blocks() - 1) * state.block >= elements) abort();
    if (state.dtype != DType::kF32 && state.dtype != DType::kBF16 && state.dtype != DType::kF16) abort();
    if (state.offset && !std::isfinite(*state.offset)) abort();
  } catch (const UserError&) {
  }
  return 0;
}
