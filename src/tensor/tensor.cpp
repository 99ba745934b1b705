#include "tensor/tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace mixtune {

Shape::Shape(std::initializer_list<int64_t> dims) : Shape(dims.begin(), static_cast<int>(dims.size())) {}

Shape::Shape(const int64_t* dims, int rank) : rank_(rank) {
  MT_CHECK(rank <= kMaxRank);
  std::copy_n(dims, rank, dims_.begin());
}

int64_t Shape::elements() const {
  int64_t n = 1;
  for (int i = 0; i < rank_; ++i) n *= dims_[i];
  return n;
}

std::string Shape::str() const {
  return fmt::format("[{}]", fmt::join(dims_.begin(), dims_.begin() + rank_, ", "));
}

Tensor Tensor::slice(int64_t begin, int64_t count) const {
  MT_CHECK(begin >= 0 && count >= 0 && begin + count <= rows());
  std::array<int64_t, Shape::kMaxRank> dims{};
  for (int i = 0; i < shape.rank(); ++i) dims[i] = shape[i];
  dims[0] = count;
  char* start = static_cast<char*>(data) + begin * row_elements() * dtype_size(dtype);
  return {start, Shape(dims.data(), shape.rank()), dtype, device};
}

Tensor Tensor::row(int64_t i) const {
  std::array<int64_t, Shape::kMaxRank> dims{};
  for (int d = 1; d < shape.rank(); ++d) dims[d - 1] = shape[d];
  return slice(i, 1).view(Shape(dims.data(), shape.rank() - 1));
}

Tensor Tensor::view(Shape new_shape) const {
  MT_CHECK(new_shape.elements() == elements());
  return {data, new_shape, dtype, device};
}

}  // namespace mixtune
