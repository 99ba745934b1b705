// What the op tests share: buffers of the same random values in both scalars, and the two comparisons.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "tensor/ctx.h"

namespace mixtune {

// Owns the memory of one tensor.
template <class S>
class Buffer {
 public:
  explicit Buffer(Shape shape, S value = S(0)) : shape_(shape), data_(shape.elements() + 1, value) {}

  // Random normal values, rounded to fp32; a name always gives the same ones.
  static Buffer random(Shape shape, std::string_view name, double scale = 1) {
    Buffer buffer(shape);
    const uint64_t key = random_key(0, name);
    for (int64_t i = 0; i < shape.elements(); ++i)
      buffer[i] = static_cast<S>(static_cast<float>(scale * random_normal(key, i)));
    return buffer;
  }

  S& operator[](int64_t i) { return data_[i]; }
  const S& operator[](int64_t i) const { return data_[i]; }
  int64_t size() const { return shape_.elements(); }
  operator Tensor() { return host_tensor(data_.data(), shape_); }
  Tensor tensor() { return *this; }

 private:
  Shape shape_;
  std::vector<S> data_;
};

struct TestCtx : Ctx {
  TestCtx() : Ctx{{}, memory, memory}, memory("test", {}, 1 << 28) {}
  Stack memory;
};

// |product - oracle| <= epsilons * eps(fp32) * the oracle's largest magnitude. `epsilons` follows from the length and
// conditioning of the op's reductions.
inline void expect_close(const Buffer<float>& product, const Buffer<double>& oracle, double epsilons) {
  ASSERT_EQ(product.size(), oracle.size());
  double largest = 0;
  for (int64_t i = 0; i < oracle.size(); ++i) largest = std::max(largest, std::abs(oracle[i]));
  ASSERT_GT(largest, 0);
  const double bound = epsilons * std::numeric_limits<float>::epsilon() * largest;
  for (int64_t i = 0; i < oracle.size(); ++i) ASSERT_NEAR(product[i], oracle[i], bound) << "element " << i;
}

// Compares the oracle's gradient of `loss` with respect to `x` with central differences along random directions. Its
// last call of `loss` is at the x it began with.
inline void expect_gradient(Buffer<double>& x, const Buffer<double>& gradient, const std::function<double()>& loss) {
  constexpr double kStep = 1e-5;
  for (int direction = 0; direction < 3; ++direction) {
    const uint64_t key = random_key(direction, "direction");
    const Buffer<double> start = x;
    double expected = 0, squares = 0, sides[2];
    for (int64_t i = 0; i < x.size(); ++i) {
      expected += gradient[i] * random_normal(key, i);
      squares += gradient[i] * gradient[i];
    }
    for (const int side : {0, 1}) {
      for (int64_t i = 0; i < x.size(); ++i) x[i] = start[i] + (side ? kStep : -kStep) * random_normal(key, i);
      sides[side] = loss();
    }
    x = start;
    EXPECT_NEAR((sides[1] - sides[0]) / (2 * kStep), expected, 1e-7 * std::sqrt(squares) + 1e-8);
  }
  loss();
}

inline double dot(const Buffer<double>& a, const Buffer<double>& b) {
  double sum = 0;
  for (int64_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace mixtune
