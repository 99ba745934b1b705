#include "kernels/no_cuda.h"

#include "kernels/eight_bit/cuda_ops.h"

namespace mixtune::cuda {

void coded_gemm(Ctx&, const CodedGemm&) {
  no_cuda();
}
void coded_swiglu_backward(Ctx&, const CodedSwigluBackward&, const Tensor&) {
  no_cuda();
}
void coded_swiglu_forward(Ctx&, const CodedSwigluForward&) {
  no_cuda();
}
void coded_wgrad(Ctx&, const CodedWgrad&) {
  no_cuda();
}
void fill_codes(Ctx&, const Tensor&, uint64_t) {
  no_cuda();
}
void fp8_dequantise(Ctx&, std::span<const Fp8Dequantise>) {
  no_cuda();
}
void fp8_quantise(Ctx&, const Fp8Quantise&) {
  no_cuda();
}
void operand_health(Ctx&, const OperandHealth&, const Tensor&) {
  no_cuda();
}
void quantise(Ctx&, const Quantise&) {
  no_cuda();
}
void quantise_mx(Ctx&, const Quantise&) {
  no_cuda();
}
void round_operand(Ctx&, const RoundOperand&, const Tensor&) {
  no_cuda();
}

}  // namespace mixtune::cuda
