// CPU twin of nf4.h: block by block. Products and sums must be rounded one by one, so what includes this is compiled
// with -ffp-contract=off.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/fp16.h"
#include "kernels/four_bit/nf4.h"

namespace mixtune::cpu {

// The block's absmax, the tensor's parts being in host memory.
inline float absmax_of(const Nf4Tensor& from, int64_t block) {
  if (!from.is_nested()) return from.absmax.as<float>()[block];
  const float* map = from.nested_map.as<float>();
  const int64_t nested = (from.first / from.block + block) / kNestedBlock;
  const float less_mean = map[from.absmax.as<uint8_t>()[block]] * from.nested_absmax.as<float>()[nested];
  return less_mean + *from.offset.as<float>();
}

// Fills to[elements] with values that no type rounded.
template <class S>
void nf4_values(const Nf4Tensor& from, S* to) {
  constexpr int64_t kParallelFrom = 1 << 9;  // blocks
  const auto* codes = from.codes.as<uint8_t>();
  const int64_t blocks = from.blocks();
#pragma omp parallel for schedule(static) if (blocks >= kParallelFrom)
  for (int64_t block = 0; block < blocks; ++block) {
    const float absmax = absmax_of(from, block);
    float values[kNf4Values.size()];
    for (size_t code = 0; code < kNf4Values.size(); ++code) values[code] = kNf4Values[code] * absmax;
    const int64_t begin = block * from.block, end = std::min(begin + from.block, from.elements);
    for (int64_t i = begin; i < end; i += 2) {
      const uint8_t two = codes[i / 2];
      to[i] = static_cast<S>(values[two >> 4]);
      if (i + 1 < end) to[i + 1] = static_cast<S>(values[two & 15]);
    }
  }
}

inline float round_through(DType dtype, float x) {
  return dtype == DType::kBF16 ? to_float(to_bf16(x)) : dtype == DType::kF16 ? to_float(to_f16(x)) : x;
}

template <class S>
void nf4_dequantise(const Nf4Dequantise& args) {
  S* to = args.to.as<S>();
  nf4_values(args.from, to);
  if (args.through == DType::kF32) return;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < args.from.elements; ++i) to[i] = round_through(args.through, static_cast<float>(to[i]));
}

// How many middles of two neighbours lie below x: the nearest value's code, the lower of two.
template <size_t N>
uint8_t nearest_code(const std::array<float, N>& values, float x) {
  size_t code = 0;
  for (size_t step = N / 2; step > 0; step /= 2) {
    const size_t middle = code + step - 1;
    if (x > (values[middle] + values[middle + 1]) / 2) code += step;
  }
  return static_cast<uint8_t>(code);
}

template <class S>
float largest_magnitude(const S* x, int64_t n) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(static_cast<float>(x[i])));
  return largest;
}

// Writes a block's codes and returns its absmax.
template <class S>
float quantise_nf4_block(const S* x, int64_t n, bool whole, uint8_t* codes) {
  constexpr float kLeast = 1e-38F;  // so that zeros have a quotient, 0
  const float absmax = largest_magnitude(x, n), divisor = std::max(absmax, kLeast), factor = 1 / divisor;
  const auto code = [&](int64_t i) -> int {
    const float value = i < n ? static_cast<float>(x[i]) : 0;
    const float quotient = whole ? value * factor : value / divisor;  // as bitsandbytes does
    return nearest_code(kNf4Values, std::clamp(quotient, -1.0F, 1.0F));
  };
  for (int64_t i = 0; i < n; i += 2) codes[i / 2] = static_cast<uint8_t>(code(i) << 4 | code(i + 1));
  return whole ? absmax : divisor;
}

// Makes codes of absmax [blocks], and writes the offset.
inline void quantise_absmax(const float* absmax, const Nf4Tensor& to) {
  const int64_t blocks = to.blocks();
  double sum = 0;
  for (int64_t b = 0; b < blocks; ++b) sum += static_cast<double>(absmax[b]);
  const auto offset = static_cast<float>(sum / static_cast<double>(std::max<int64_t>(blocks, 1)));
  *to.offset.as<float>() = offset;
  std::array<float, 256> map;
  std::copy_n(to.nested_map.as<float>(), map.size(), map.begin());
  for (int64_t begin = 0; begin < blocks; begin += kNestedBlock) {
    const int64_t end = std::min(begin + kNestedBlock, blocks);
    float largest = 0;
    for (int64_t b = begin; b < end; ++b) largest = std::max(largest, std::abs(absmax[b] - offset));
    to.nested_absmax.as<float>()[begin / kNestedBlock] = largest;
    for (int64_t b = begin; b < end; ++b)
      to.absmax.as<uint8_t>()[b] = largest == 0 ? 0 : nearest_code(map, (absmax[b] - offset) / largest);
  }
}

template <class S>
void nf4_quantise(const Nf4Quantise& args) {
  const Nf4Tensor& to = args.to;
  std::vector<float> own(to.is_nested() ? to.blocks() : 0);
  float* absmax = to.is_nested() ? own.data() : to.absmax.as<float>();
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < to.blocks(); ++block) {
    const int64_t begin = block * to.block, n = std::min(to.block, to.elements - begin);
    absmax[block] = quantise_nf4_block(args.x.as<S>() + begin, n, n == to.block, to.codes.as<uint8_t>() + begin / 2);
  }
  if (to.is_nested()) quantise_absmax(absmax, to);
}

}  // namespace mixtune::cpu
