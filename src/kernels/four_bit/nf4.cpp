#include "kernels/four_bit/nf4.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/four_bit/cuda_ops.h"
#include "kernels/four_bit/nf4_cpu.h"
#include "kernels/on_device.h"

namespace mixtune {

namespace {

// n numbers at equal distances, from 0.1 to 1, each half counted from its own end: as torch.linspace rounds them.
std::vector<float> equal_parts(int n) {
  const float begin = 0.1F, end = 1, step = (end - begin) / static_cast<float>(n - 1);
  std::vector<float> numbers;
  for (int i = 0; i < n; ++i)
    numbers.push_back(i < n / 2 ? std::fma(step, static_cast<float>(i), begin)
                                : std::fma(-step, static_cast<float>(n - 1 - i), end));
  return numbers;
}

std::array<float, 256> make_dynamic_map() {
  constexpr std::array kPowers = {1e-6F, 1e-5F, 1e-4F, 1e-3F, 1e-2F, 1e-1F, 1.0F};
  std::vector<float> values = {0, 1};
  for (size_t k = 0; k < kPowers.size(); ++k) {
    const std::vector<float> bounds = equal_parts((1 << k) + 1);
    for (size_t i = 0; i + 1 < bounds.size(); ++i) {
      const float value = kPowers[k] * ((bounds[i] + bounds[i + 1]) / 2);
      values.insert(values.end(), {value, -value});
    }
  }
  std::ranges::sort(values);
  std::array<float, 256> map;
  MT_CHECK(values.size() == map.size());
  std::ranges::copy(values, map.begin());
  return map;
}

void check_parts(const Nf4Tensor& tensor) {
  MT_CHECK(tensor.block >= 32 && (tensor.block & (tensor.block - 1)) == 0 && tensor.first % tensor.block == 0);
  MT_CHECK(tensor.codes.dtype == DType::kU8 && tensor.codes.elements() == (tensor.elements + 1) / 2);
  MT_CHECK(tensor.absmax.elements() == tensor.blocks());
  MT_CHECK(tensor.absmax.dtype == (tensor.is_nested() ? DType::kU8 : DType::kF32));
  if (!tensor.is_nested()) return;
  MT_CHECK(tensor.nested_absmax.elements() >= tensor.nested_blocks());
  MT_CHECK(tensor.nested_map.elements() == 256 && tensor.offset.elements() == 1);
  for (const Tensor& part : {tensor.nested_absmax, tensor.nested_map, tensor.offset})
    MT_CHECK(part.dtype == DType::kF32);
}

}  // namespace

const std::array<float, 256>& dynamic_map() {
  static const std::array<float, 256> map = make_dynamic_map();
  return map;
}

int64_t nf4_bytes(int64_t elements, bool nested) {
  const Nf4Tensor tensor = {.elements = elements, .codes = {}, .absmax = {}};
  const auto size = static_cast<int64_t>(sizeof(float));
  const int64_t absmax = nested ? tensor.blocks() + size * (tensor.nested_blocks() + 1) : size * tensor.blocks();
  return (elements + 1) / 2 + absmax;
}

void nf4_values(const Nf4Tensor& from, float* to) {
  check_parts(from);
  cpu::nf4_values(from, to);
}

void nf4_dequantise(Ctx& ctx, std::span<const Nf4Dequantise> tensors) {
  if (tensors.empty()) return;
  for (const Nf4Dequantise& tensor : tensors) {
    check_parts(tensor.from);
    MT_CHECK(tensor.to.elements() == tensor.from.elements && tensor.to.dtype == tensors[0].to.dtype);
  }
  on_device(
      ctx, "weights from 4 bits", tensors[0].to.dtype,
      [&]<class S>(S) {
        for (const Nf4Dequantise& tensor : tensors) cpu::nf4_dequantise<S>(tensor);
      },
      [&] { cuda::nf4_dequantise(ctx, tensors); });
}

void nf4_quantise(Ctx& ctx, const Nf4Quantise& args) {
  check_parts(args.to);
  MT_CHECK(args.x.elements() == args.to.elements && args.to.first == 0);
  const Frame frame(ctx);
  on_device(
      ctx, "weights to 4 bits", args.x.dtype, [&]<class S>(S) { cpu::nf4_quantise<S>(args); },
      [&] {
        const Tensor absmax =
            args.to.is_nested() ? ctx.stack.push("absmax of blocks", {args.to.blocks()}, DType::kF32) : args.to.absmax;
        cuda::nf4_quantise(ctx, args, absmax);
      });
}

}  // namespace mixtune
