// Tensor: a view of memory that something else owns.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "base/dtype.h"
#include "base/error.h"

namespace mixtune {

// Token rows of a batch, and rows of each expert, come in multiples of this.
constexpr int64_t kRowAlignment = 128;
constexpr int64_t align_rows(int64_t rows) {
  return (rows + kRowAlignment - 1) / kRowAlignment * kRowAlignment;
}

// kMeta has no memory and computes nothing: work there only counts the memory that a GPU would need.
enum class DeviceType : uint8_t { kCpu, kCuda, kMeta };

struct Device {
  DeviceType type = DeviceType::kCpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

// Up to four dimensions, row-major.
class Shape {
 public:
  static constexpr int kMaxRank = 4;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);
  Shape(const int64_t* dims, int rank);

  int rank() const { return rank_; }
  int64_t operator[](int dim) const { return dims_[dim < 0 ? rank_ + dim : dim]; }
  int64_t elements() const;
  bool operator==(const Shape&) const = default;
  std::string str() const;  // "[2, 3]"

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

// A contiguous view. Copying a Tensor copies the view; constness is the view's, not that of its elements.
struct Tensor {
  void* data = nullptr;
  Shape shape;
  DType dtype = DType::kF32;
  Device device;

  int64_t elements() const { return shape.elements(); }
  int64_t rows() const { return shape[0]; }
  int64_t row_elements() const { return rows() == 0 ? 0 : elements() / rows(); }
  size_t bytes() const { return static_cast<size_t>(elements()) * dtype_size(dtype); }
  explicit operator bool() const { return data != nullptr; }

  template <class T>
  T* as() const {
    MT_CHECK(dtype == DTypeOf<T>::value);
    return static_cast<T*>(data);
  }

  // Rows [begin, begin + count) of the first dimension.
  Tensor slice(int64_t begin, int64_t count) const;
  // Row `i` without its first dimension.
  Tensor row(int64_t i) const;
  // The same elements under another shape.
  Tensor view(Shape new_shape) const;
};

// A view of host memory.
template <class T>
Tensor host_tensor(T* data, Shape shape) {
  return {const_cast<std::remove_const_t<T>*>(data), shape, DTypeOf<std::remove_const_t<T>>::value, {}};
}

}  // namespace mixtune
