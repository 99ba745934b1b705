#include "checkpoint/convert.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"

namespace mixtune {

namespace {

constexpr int64_t kParallelFrom = 1 << 15;  // elements; fewer are not worth waking the threads

inline float widen_one(float x) {
  return x;
}
inline float widen_one(BF16 x) {
  return to_float(x);
}
inline float widen_one(F16 x) {
  return to_float(x);
}

inline double widen_one(double x) {
  return x;
}

inline void narrow_one(float x, float& y) {
  y = x;
}
inline void narrow_one(float x, double& y) {
  y = x;
}
inline void narrow_one(float x, BF16& y) {
  y = to_bf16(x);
}
inline void narrow_one(float x, F16& y) {
  y = to_f16(x);
}

// The fp32 nearest to 0 that `x` is beyond, made odd where it is another number: rounding that to a type of at most 22
// bits of mantissa is rounding `x`, once.
inline float to_odd(double x) {
  const auto nearest = static_cast<float>(x);
  if (static_cast<double>(nearest) == x || std::isnan(x)) return nearest;
  const bool is_beyond = std::abs(static_cast<double>(nearest)) > std::abs(x);
  return std::bit_cast<float>((std::bit_cast<uint32_t>(nearest) - (is_beyond ? 1 : 0)) | 1);
}

inline void narrow_one(double x, float& y) {
  y = static_cast<float>(x);
}
inline void narrow_one(double x, BF16& y) {
  y = to_bf16(to_odd(x));
}
inline void narrow_one(double x, F16& y) {
  y = to_f16(to_odd(x));
}

// Looks at the bits, so that no compiler flag can assume the answer.
inline bool not_finite(float x) {
  return (std::bit_cast<uint32_t>(x) & 0x7F800000u) == 0x7F800000u;
}
inline bool not_finite(double x) {
  return (std::bit_cast<uint64_t>(x) & 0x7FF0000000000000u) == 0x7FF0000000000000u;
}

// Whether no value's magnitude, as bits, reaches that of infinity.
template <class Bits>
bool all_below(const std::byte* values, int64_t n, Bits magnitude, Bits infinity) {
  Bits largest = 0;
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < n; ++i) {
    Bits bits;
    std::memcpy(&bits, values + i * sizeof(Bits), sizeof(Bits));
    largest = std::max<Bits>(largest, bits & magnitude);
  }
  return largest < infinity;
}

template <class From, class To>
bool decode_as(const std::byte* from, To* to, int64_t n) {
  bool bad = false;
#pragma omp parallel for simd reduction(|| : bad) if (n >= kParallelFrom)
  for (int64_t i = 0; i < n; ++i) {
    From x;
    std::memcpy(&x, from + i * sizeof(From), sizeof(From));
    const float wide = widen_one(x);
    narrow_one(wide, to[i]);
    bad = bad || not_finite(static_cast<float>(widen_one(to[i])));
  }
  return !bad;
}

template <class To>
bool decode_to(const std::byte* from, DType from_dtype, To* to, int64_t n) {
  if (from_dtype == DType::kBF16) return decode_as<BF16>(from, to, n);
  if (from_dtype == DType::kF16) return decode_as<F16>(from, to, n);
  return decode_as<float>(from, to, n);
}

template <class To, class From>
bool narrow_as(const From* from, std::byte* to, int64_t n) {
  bool bad = false;
#pragma omp parallel for simd reduction(|| : bad) if (n >= kParallelFrom)
  for (int64_t i = 0; i < n; ++i) {
    To y;
    narrow_one(from[i], y);
    bad = bad || (not_finite(widen_one(y)) && !not_finite(from[i]));
    std::memcpy(to + i * sizeof(To), &y, sizeof(To));
  }
  return !bad;
}

template <class From>
bool narrow_to(std::span<const From> from, DType to_dtype, std::span<std::byte> to) {
  const auto n = static_cast<int64_t>(from.size());
  MT_CHECK(is_weight_dtype(to_dtype) && to.size() == from.size() * dtype_size(to_dtype));
  if (to_dtype == DType::kBF16) return narrow_as<BF16>(from.data(), to.data(), n);
  if (to_dtype == DType::kF16) return narrow_as<F16>(from.data(), to.data(), n);
  return narrow_as<float>(from.data(), to.data(), n);
}

}  // namespace

bool is_weight_dtype(DType from) {
  return from == DType::kF32 || from == DType::kBF16 || from == DType::kF16;
}

bool decode(std::span<const std::byte> from, DType from_dtype, const Tensor& to) {
  const int64_t n = to.elements();
  MT_CHECK(is_weight_dtype(from_dtype) && from.size() == n * dtype_size(from_dtype));
  if (to.dtype == DType::kBF16) return decode_to(from.data(), from_dtype, to.as<BF16>(), n);
  if (to.dtype == DType::kF64) return decode_to(from.data(), from_dtype, to.as<double>(), n);
  return decode_to(from.data(), from_dtype, to.as<float>(), n);
}

bool all_finite(std::span<const std::byte> values, DType dtype) {
  MT_CHECK(is_weight_dtype(dtype));
  const auto n = static_cast<int64_t>(values.size() / dtype_size(dtype));
  if (dtype == DType::kBF16) return all_below<uint16_t>(values.data(), n, 0x7FFF, 0x7F80);
  if (dtype == DType::kF16) return all_below<uint16_t>(values.data(), n, 0x7FFF, 0x7C00);
  return all_below<uint32_t>(values.data(), n, 0x7FFFFFFF, 0x7F800000);
}

bool all_finite(const Tensor& values) {
  const Tensor flat = values.view({values.elements()});
  const int64_t n = flat.elements();
  bool bad = false;
#pragma omp parallel for reduction(|| : bad) if (n >= kParallelFrom)
  for (int64_t begin = 0; begin < n; begin += kParallelFrom)
    bad = bad || !all_finite(bytes_of(flat.slice(begin, std::min(kParallelFrom, n - begin))), values.dtype);
  return !bad;
}

void check_finite_to_save(const Tensor& values, const std::string& name) {
  if (all_finite(values)) return;
  throw Error(name, "holds NaN or infinity: training went bad, nothing is saved",
              "lower learning_rate or raise adam_epsilon; earlier checkpoints are intact", ExitCode::kWentBad);
}

bool narrow(std::span<const float> from, DType to_dtype, std::span<std::byte> to) {
  return narrow_to(from, to_dtype, to);
}

bool narrow(std::span<const double> from, DType to_dtype, std::span<std::byte> to) {
  return narrow_to(from, to_dtype, to);
}

std::vector<std::byte> transposed(std::span<const std::byte> matrix, size_t size, const Shape& shape) {
  const auto rows = static_cast<size_t>(shape[0]), columns = static_cast<size_t>(shape[1]);
  MT_CHECK(matrix.size() == rows * columns * size);
  std::vector<std::byte> result(matrix.size());
  for (size_t i = 0; i < rows; ++i)
    for (size_t j = 0; j < columns; ++j)
      std::memcpy(&result[(j * rows + i) * size], &matrix[(i * columns + j) * size], size);
  return result;
}

}  // namespace mixtune
