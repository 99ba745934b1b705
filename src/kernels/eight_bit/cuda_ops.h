// The CUDA half of operands in 8 bits; kernels/cuda_ops.h says what holds for all.
#pragma once

#include "kernels/eight_bit/coded_gemm.h"
#include "kernels/eight_bit/coded_swiglu.h"
#include "kernels/eight_bit/fp8_weight.h"
#include "kernels/eight_bit/operand_health.h"
#include "kernels/eight_bit/quantise.h"
#include "kernels/eight_bit/round_operand.h"

namespace mixtune::cuda {

void coded_gemm(Ctx& ctx, const CodedGemm& args);
void coded_swiglu_forward(Ctx& ctx, const CodedSwigluForward& args);
// parts [F / 128, R] fp32 is scratch.
void coded_swiglu_backward(Ctx& ctx, const CodedSwigluBackward& args, const Tensor& parts);
void coded_wgrad(Ctx& ctx, const CodedWgrad& args);
// Fills `codes` with codes of random signs, mantissas and the smaller exponents, for measurements.
void fill_codes(Ctx& ctx, const Tensor& codes, uint64_t key);
void fp8_dequantise(Ctx& ctx, std::span<const Fp8Dequantise> matrices);
void fp8_quantise(Ctx& ctx, const Fp8Quantise& args);
// amax: of each matrix, int32 scratch where its elements share a scale; otherwise empty.
void operand_health(Ctx& ctx, const OperandHealth& args, const Tensor& amax);
void quantise(Ctx& ctx, const Quantise& args);
void quantise_mx(Ctx& ctx, const Quantise& args);
// amax as above.
void round_operand(Ctx& ctx, const RoundOperand& args, const Tensor& amax);

}  // namespace mixtune::cuda
