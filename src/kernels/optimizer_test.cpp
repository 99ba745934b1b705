#include "kernels/optimizer.h"

#include <omp.h>

#include <array>
#include <bit>

#include "kernels/testing.h"

namespace mixtune {
namespace {

constexpr int64_t kSize = 100000;  // several blocks

class Threads {
 public:
  explicit Threads(int count) { omp_set_num_threads(count); }
  ~Threads() { omp_set_num_threads(before_); }

 private:
  int before_ = omp_get_max_threads();
};

Buffer<double> scalar(double x) {
  return Buffer<double>({1}, x);
}

double norm_squared(Ctx& ctx, std::initializer_list<Tensor> tensors) {
  Buffer<double> sum = scalar(NAN);
  sum_of_squares(ctx, tensors, sum);
  return sum[0];
}

TEST(SumOfSquares, IsExactEnoughAndTheSameOnAnyNumberOfThreads) {
  TestCtx ctx;
  Buffer<float> x = Buffer<float>::random({kSize}, "x");
  Buffer<double> y = Buffer<double>::random({7}, "y");
  Buffer<BF16> z({40000}, to_bf16(0.5f));
  double expected = 40000 * 0.25;
  for (int64_t i = 0; i < kSize; ++i) expected += static_cast<double>(x[i]) * x[i];
  for (int64_t i = 0; i < 7; ++i) expected += y[i] * y[i];
  const auto sum = [&] {
    return norm_squared(ctx, {x, y, Tensor{nullptr, {0}}, z});
  };
  EXPECT_NEAR(sum(), expected, 1e-12 * expected);
  const auto sum_on = [&](int count) {
    const Threads threads(count);
    return sum();
  };
  EXPECT_EQ(sum_on(1), sum_on(3));
  EXPECT_EQ(norm_squared(ctx, {}), 0);
}

double clipped(double squares, double max_norm, double guard = 1) {
  TestCtx ctx;
  Buffer<double> sum = scalar(squares), scale = scalar(-1), guards({3}, 1);
  guards[1] = guard;
  clip_scale(ctx, {.squares = sum, .guards = guards, .scale = scale, .max_norm = max_norm});
  return scale[0];
}

TEST(ClipScale, IsTorchsAndNanWhereAnythingIsNotFinite) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(clipped(16, 1), 1 / (4 + 1e-6));
  EXPECT_EQ(clipped(0.25, 1), 1);
  EXPECT_EQ(clipped(16, 0), 1);
  EXPECT_TRUE(std::isnan(clipped(NAN, 1)));
  EXPECT_TRUE(std::isnan(clipped(kInfinity, 0)));
  EXPECT_TRUE(std::isnan(clipped(16, 1, -kInfinity)));
  EXPECT_TRUE(std::isnan(clipped(16, 0, NAN)));
  TestCtx ctx;
  Buffer<double> squares = scalar(16), scale = scalar(-1);
  clip_scale(ctx, {.squares = squares, .scale = scale, .max_norm = 2});
  EXPECT_EQ(scale[0], 2 / (4 + 1e-6));
}

AdamWStep settings(int64_t step, const Tensor& grad_scale) {
  return {.learning_rate = 0.01, .beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-6, .step = step, .grad_scale = grad_scale};
}

// Two tensors: one of several blocks, and one of three elements that does not decay.
template <class S>
struct Adam {
  TestCtx ctx;
  Buffer<S> weight = Buffer<S>::random({kSize}, "w"), m{{kSize}}, v{{kSize}};
  Buffer<S> small = Buffer<S>::random({3}, "small"), small_m{{3}}, small_v{{3}};

  void steps(int count, double grad_scale = 0.5) {
    Buffer<double> scale = scalar(grad_scale);
    for (int step = 1; step <= count; ++step) {
      Buffer<S> grad = Buffer<S>::random({kSize}, std::to_string(step));
      const AdamWTensor tensors[] = {
          {.weight = weight, .grad = grad, .m = m, .v = v, .weight_decay = 0.1},
          {.weight = small, .grad = grad.tensor().slice(4, 3), .m = small_m, .v = small_v},
      };
      adamw(ctx, tensors, settings(step, scale));
    }
  }
};

TEST(AdamW, FollowsTheFormula) {
  Adam<double> adam;
  adam.steps(3);
  const auto expect = [](double start, int64_t element, double decay, double got, double got_m, double got_v) {
    double w = start, m = 0, v = 0;
    for (int step = 1; step <= 3; ++step) {
      const double g = 0.5 * Buffer<double>::random({kSize}, std::to_string(step))[element];
      m = 0.9 * m + 0.1 * g;
      v = 0.99 * v + 0.01 * g * g;
      w -= 0.01 * decay * w;
      w -= 0.01 * (m / (1 - std::pow(0.9, step))) / (std::sqrt(v / (1 - std::pow(0.99, step))) + 1e-6);
    }
    EXPECT_NEAR(got, w, 1e-13);
    EXPECT_NEAR(got_m, m, 1e-14);
    EXPECT_NEAR(got_v, v, 1e-14);
  };
  const int64_t last = kSize - 1;
  expect(Buffer<double>::random({kSize}, "w")[last], last, 0.1, adam.weight[last], adam.m[last], adam.v[last]);
  expect(Buffer<double>::random({3}, "small")[2], 6, 0, adam.small[2], adam.small_m[2], adam.small_v[2]);

  Adam<float> product;
  product.steps(3);
  expect_close(product.weight, adam.weight, 8);
  expect_close(product.m, adam.m, 8);
  expect_close(product.v, adam.v, 8);
  expect_close(product.small, adam.small, 8);
}

TEST(AdamW, IsTheSameOnAnyNumberOfThreads) {
  Adam<float> one, three;
  const auto two_steps_on = [](int count, Adam<float>& adam) {
    const Threads threads(count);
    adam.steps(2);
  };
  two_steps_on(1, one);
  two_steps_on(3, three);
  for (int64_t i = 0; i < kSize; ++i) ASSERT_EQ(one.weight[i], three.weight[i]);
}

TEST(AdamW, ChangesNothingWhereTheScaleIsNan) {
  Adam<float> adam;
  adam.steps(1, NAN);
  const Buffer<float> start = Buffer<float>::random({kSize}, "w");
  for (int64_t i = 0; i < kSize; ++i) ASSERT_TRUE(adam.weight[i] == start[i] && adam.m[i] == 0 && adam.v[i] == 0);
}

TEST(StochasticRounding, HasTheMeanOfWhatItRounds) {
  for (const float x : {1.0f, 1.00390625f, -3.14159f, 1e-38f, 1e-40f, -6.5e4f}) {
    double sum = 0;
    for (uint32_t bits = 0; bits < 0x10000; ++bits)
      sum += to_float(BF16{stochastic_bf16_bits(std::bit_cast<uint32_t>(x), bits | 0xABCD0000)});
    EXPECT_EQ(sum / 0x10000, x);
  }
  for (const uint32_t infinity : {0x7F800000u, 0xFF800000u}) {
    EXPECT_EQ(stochastic_bf16_bits(infinity, 0xFFFF), infinity >> 16);
    for (const uint32_t payload : {1u, 0x400000u, 0x7FFFFFu})
      EXPECT_TRUE(std::isnan(to_float(BF16{stochastic_bf16_bits(infinity | payload, 0xFFFF)})));
  }
}

// One list entry in the given storage, with steps from zero moments.
template <class W, class M>
struct Trained {
  Buffer<W> weight;
  Buffer<float> master;
  Buffer<M> m, v;

  explicit Trained(int64_t n, W start = W{}, float master_start = 0)
      : weight({n}, start), master({n}, master_start), m({n}), v({n}) {}
  AdamWTensor entry(const Tensor& grad, int64_t step, bool with_master = false) {
    return {.weight = weight,
            .master = with_master ? master : Tensor{},
            .grad = grad,
            .m = m,
            .v = v,
            .key = random_key(step, "key")};
  }
};

double mean(const Buffer<BF16>& x) {
  double sum = 0;
  for (int64_t i = 0; i < x.size(); ++i) sum += to_float(x[i]);
  return sum / static_cast<double>(x.size());
}

double mean(const Buffer<float>& x) {
  double sum = 0;
  for (int64_t i = 0; i < x.size(); ++i) sum += x[i];
  return sum / static_cast<double>(x.size());
}

// Design, section 4: after 3,000 steps of 10 times smaller gradients the mean of the bf16 second moment is within 2% of
// fp32's. An element's rounding noise is about 5% (a random walk that beta2 pulls back), so of 4096 the mean's is 0.1%.
TEST(AdamW, StochasticSecondMomentDecaysAsFp32s) {
  const Threads threads(1);  // thousands of short steps
  constexpr int64_t kElements = 4096;
  TestCtx ctx;
  Trained<float, float> exact(kElements);
  Trained<float, BF16> stochastic(kElements);
  Buffer<float> grad({kElements});
  Buffer<BF16> nearest({kElements});
  Buffer<double> scale = scalar(1);
  for (int64_t step = 1; step <= 4500; ++step) {
    const uint64_t key = random_key(step, "gradients");
    const double size = step <= 1500 ? 1e-2 : 1e-3;
    for (int64_t i = 0; i < kElements; ++i) {
      grad[i] = static_cast<float>(size * (2 * random_uniform(key, i) - 1));
      nearest[i] = to_bf16(to_float(nearest[i]) * 0.999f + 0.001f * grad[i] * grad[i]);
    }
    adamw(ctx, std::array{exact.entry(grad, step), stochastic.entry(grad, step)},
          {.learning_rate = 1e-5, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .step = step, .grad_scale = scale});
  }
  const double expected = mean(exact.v);
  EXPECT_NEAR(mean(stochastic.v), expected, 0.02 * expected);
  EXPECT_GT(mean(nearest), 5 * expected);  // rounded to nearest it never decays
}

// Weights of 1 and steps of 1e-5, a four-hundredth of the distance to the next bf16: 2,000 of them move fp32 by 0.02. A
// bf16 weight takes about 5 steps of 2^-8, so the mean of 4096 is known to 0.7%.
TEST(AdamW, StochasticWeightsFollowFp32sMean) {
  const Threads threads(1);  // thousands of short steps
  constexpr int64_t kElements = 4096;
  TestCtx ctx;
  Trained<float, BF16> exact(kElements, 1);
  Trained<BF16, BF16> stochastic(kElements, to_bf16(1));
  Buffer<BF16> grad({kElements}, to_bf16(0.125f));
  Buffer<double> scale = scalar(1);
  float nearest = 1;
  for (int64_t step = 1; step <= 2000; ++step) {
    adamw(ctx, std::array{exact.entry(grad, step), stochastic.entry(grad, step)},
          {.learning_rate = 1e-5, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .step = step, .grad_scale = scale});
    nearest = to_float(to_bf16(nearest - 1e-5f));
  }
  const double moved = 1 - mean(exact.weight);
  EXPECT_NEAR(moved, 0.02, 0.002);
  EXPECT_NEAR(1 - mean(stochastic.weight), moved, 0.03 * moved);
  EXPECT_EQ(nearest, 1);  // rounded to nearest it never moves
}

TEST(AdamW, WithAMasterTheWeightIsItsNearest) {
  constexpr int64_t kElements = 1000;
  TestCtx ctx;
  Trained<float, float> plain(kElements, 0.7f);
  Trained<BF16, float> mixed(kElements, BF16{}, 0.7f);
  Buffer<float> grad = Buffer<float>::random({kElements}, "grad");
  Buffer<double> scale = scalar(1);
  for (int64_t step = 1; step <= 3; ++step)
    adamw(ctx, std::array{plain.entry(grad, step), mixed.entry(grad, step, true)}, settings(step, scale));
  for (int64_t i = 0; i < kElements; ++i) {
    ASSERT_NEAR(mixed.master[i], plain.weight[i], 1e-7);
    ASSERT_EQ(mixed.weight[i].bits, to_bf16(mixed.master[i]).bits);
  }
}

TEST(AdamW, RoundingDoesNotDependOnHowATensorIsCut) {
  constexpr int64_t kElements = 70001, kCut = 33333;
  TestCtx ctx;
  Trained<BF16, BF16> whole(kElements, to_bf16(1)), cut(kElements, to_bf16(1));
  Buffer<float> grad = Buffer<float>::random({kElements}, "grad");
  Buffer<double> scale = scalar(1);
  const AdamWTensor all = cut.entry(grad, 1);
  const auto part = [&](int64_t begin, int64_t count) {
    AdamWTensor tensor = all;
    for (Tensor* t : {&tensor.weight, &tensor.grad, &tensor.m, &tensor.v}) *t = t->slice(begin, count);
    tensor.first = begin;
    return tensor;
  };
  adamw(ctx, std::array{whole.entry(grad, 1)}, settings(1, scale));
  adamw(ctx, std::array{part(kCut, kElements - kCut), part(0, kCut)}, settings(1, scale));
  for (int64_t i = 0; i < kElements; ++i) {
    ASSERT_EQ(cut.weight[i].bits, whole.weight[i].bits);
    ASSERT_EQ(cut.m[i].bits, whole.m[i].bits);
    ASSERT_EQ(cut.v[i].bits, whole.v[i].bits);
  }
}

}  // namespace
}  // namespace mixtune
