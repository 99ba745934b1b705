#include "kernels/optimizer.h"

#include <omp.h>

#include "kernels/testing.h"

namespace mixtune {
namespace {

constexpr int64_t kSize = 100000;  // several blocks

TEST(SumOfSquares, IsExactEnoughAndTheSameOnAnyNumberOfThreads) {
  TestCtx ctx;
  Buffer<float> x = Buffer<float>::random({kSize}, "x");
  double expected = 0;
  for (int64_t i = 0; i < kSize; ++i) expected += static_cast<double>(x[i]) * x[i];
  EXPECT_NEAR(sum_of_squares(ctx, x), expected, 1e-12 * expected);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(3);
  const double three = sum_of_squares(ctx, x);
  omp_set_num_threads(1);
  EXPECT_EQ(sum_of_squares(ctx, x), three);
  omp_set_num_threads(threads);
}

template <class S>
struct Adam {
  TestCtx ctx;
  Buffer<S> weight = Buffer<S>::random({kSize}, "w"), m{{kSize}}, v{{kSize}};

  void steps(int count) {
    for (int step = 1; step <= count; ++step) {
      Buffer<S> grad = Buffer<S>::random({kSize}, std::to_string(step));
      adamw(ctx, {.weight = weight,
                  .grad = grad,
                  .m = m,
                  .v = v,
                  .grad_scale = 0.5,
                  .learning_rate = 0.01,
                  .beta1 = 0.9,
                  .beta2 = 0.99,
                  .epsilon = 1e-6,
                  .weight_decay = 0.1,
                  .step = step});
    }
  }
};

TEST(AdamW, FollowsTheFormula) {
  Adam<double> adam;
  adam.steps(3);
  double w = Buffer<double>::random({kSize}, "w")[7], m = 0, v = 0;
  for (int step = 1; step <= 3; ++step) {
    const double g = 0.5 * Buffer<double>::random({kSize}, std::to_string(step))[7];
    m = 0.9 * m + 0.1 * g;
    v = 0.99 * v + 0.01 * g * g;
    w -= 0.01 * 0.1 * w;
    w -= 0.01 * (m / (1 - std::pow(0.9, step))) / (std::sqrt(v / (1 - std::pow(0.99, step))) + 1e-6);
  }
  EXPECT_NEAR(adam.weight[7], w, 1e-13);
  EXPECT_NEAR(adam.m[7], m, 1e-14);
  EXPECT_NEAR(adam.v[7], v, 1e-14);

  Adam<float> product;
  product.steps(3);
  expect_close(product.weight, adam.weight, 8);
  expect_close(product.m, adam.m, 8);
  expect_close(product.v, adam.v, 8);
}

}  // namespace
}  // namespace mixtune
