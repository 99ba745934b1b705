#include "kernels/no_cuda.h"

#include "kernels/four_bit/cuda_ops.h"

namespace mixtune::cuda {

void nf4_dequantise(Ctx&, std::span<const Nf4Dequantise>) {
  no_cuda();
}
void nf4_quantise(Ctx&, const Nf4Quantise&, const Tensor&) {
  no_cuda();
}

}  // namespace mixtune::cuda
