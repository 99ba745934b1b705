#include "kernels/eight_bit/fp8_weight.h"

#include "kernels/eight_bit/cuda_ops.h"
#include "kernels/eight_bit/fp8_weight_cpu.h"
#include "kernels/on_device.h"

namespace mixtune {

namespace {

void check_parts(const Fp8Weight& weight, const Tensor& values) {
  MT_CHECK(weight.codes.dtype == DType::kF8E4M3 && weight.scales.dtype == DType::kF32);
  MT_CHECK(weight.scales.shape == fp8_weight_scales(weight.codes.shape));
  MT_CHECK(values.elements() == weight.codes.elements());
}

}  // namespace

Shape fp8_weight_scales(const Shape& matrix) {
  MT_CHECK(matrix.rank() == 2);
  const auto blocks = [](int64_t n) {
    return (n + kScaleBlock - 1) / kScaleBlock;
  };
  return {blocks(matrix[0]), blocks(matrix[1])};
}

void fp8_quantise(Ctx& ctx, const Fp8Quantise& args) {
  check_parts(args.to, args.x);
  on_device(
      ctx, "weights to 8 bits", args.x.dtype, [&]<class S>(S) { cpu::fp8_quantise<S>(args); },
      [&] { cuda::fp8_quantise(ctx, args); });
}

void fp8_dequantise(Ctx& ctx, std::span<const Fp8Dequantise> matrices) {
  if (matrices.empty()) return;
  for (const Fp8Dequantise& matrix : matrices) {
    check_parts(matrix.from, matrix.to);
    MT_CHECK(matrix.to.dtype == matrices[0].to.dtype);
  }
  on_device(
      ctx, "weights from 8 bits", matrices[0].to.dtype,
      [&]<class S>(S) {
        for (const Fp8Dequantise& matrix : matrices) cpu::fp8_dequantise<S>(matrix);
      },
      [&] { cuda::fp8_dequantise(ctx, matrices); });
}

}  // namespace mixtune
