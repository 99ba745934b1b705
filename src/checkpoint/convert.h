// Conversions between the element types of files and those to compute with, on all threads unless said.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "base/fp16.h"
#include "tensor/tensor.h"

namespace mixtune {

// Whether `from` is a type of weights: fp32, bf16 or fp16, each exact in fp32.
bool is_weight_dtype(DType from);

// Fills `to` (fp32, fp64, or bf16: rounded to nearest, ties to even) with `from`, which need not be aligned. False if a
// value is not finite.
bool decode(std::span<const std::byte> from, DType from_dtype, const Tensor& to);

// The bytes of a tensor in host memory.
inline std::span<const std::byte> bytes_of(const Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.data), tensor.bytes()};
}

// Whether all values of `dtype` (fp32, bf16 or fp16) are finite. They need not be aligned. Runs on the calling thread.
bool all_finite(std::span<const std::byte> values, DType dtype);
// Whether all values are finite; runs on all threads.
bool all_finite(const Tensor& values);

// Throws Error (kWentBad) naming the tensor unless all values are finite.
void check_finite_to_save(const Tensor& values, const std::string& name);

// Fills `to` (fp32, bf16 or fp16, as large as it needs to be) with `from`, rounded to nearest, ties to even, once.
// False if a finite value became infinite.
bool narrow(std::span<const float> from, DType to_dtype, std::span<std::byte> to);
bool narrow(std::span<const double> from, DType to_dtype, std::span<std::byte> to);

// The transpose of a matrix of this shape, whose elements have `size` bytes. Runs on the calling thread.
std::vector<std::byte> transposed(std::span<const std::byte> matrix, size_t size, const Shape& shape);

}  // namespace mixtune
