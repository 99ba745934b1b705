// SwiGLU, embedding, cross-entropy, and the exponential they share.
#include <cstring>

#include "kernels/cpu_math.h"
#include "kernels/cross_entropy.h"
#include "kernels/embedding.h"
#include "kernels/swiglu.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

TEST(Exp, WithinTwoUlpAndFlushedAtTheEnds) {
  for (double x = -87; x <= 88; x += 0.0137) {
    const double exact = std::exp(static_cast<double>(static_cast<float>(x)));
    EXPECT_NEAR(cpu::exp(static_cast<float>(x)), exact, 2 * std::numeric_limits<float>::epsilon() * exact);
  }
  EXPECT_EQ(cpu::exp(0.0f), 1.0f);
  EXPECT_LT(cpu::exp(-1e30f), 2e-38f);
  EXPECT_TRUE(std::isfinite(cpu::exp(1e30f)));
  EXPECT_TRUE(std::isnan(cpu::exp(std::numeric_limits<float>::quiet_NaN())));
}

constexpr int64_t kRows = 40, kFfn = 19;

template <class S>
struct Swiglu {
  TestCtx ctx;
  Buffer<S> gate_up = Buffer<S>::random({kRows, 2 * kFfn}, "gate_up", 3),
            weights = Buffer<S>::random({kRows}, "weights");
  Buffer<S> dact = Buffer<S>::random({kRows, kFfn}, "dact"), act{{kRows, kFfn}}, act_again{{kRows, kFfn}};
  Buffer<S> dgate_up{{kRows, 2 * kFfn}}, dweights{{kRows}};

  void forward() { swiglu_forward(ctx, gate_up, weights, act); }
  void backward() { swiglu_backward(ctx, {gate_up, weights, dact, dgate_up, dweights, act_again}); }
};

TEST(Swiglu, ForwardAndBackward) {
  Swiglu<double> oracle;
  oracle.forward();
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t i = 0; i < kFfn; ++i) {
      const double g = oracle.gate_up[r * 2 * kFfn + i], u = oracle.gate_up[r * 2 * kFfn + kFfn + i];
      EXPECT_NEAR(oracle.act[r * kFfn + i], g / (1 + std::exp(-g)) * u * oracle.weights[r], 1e-13);
    }
  oracle.backward();
  const auto loss = [&] {
    oracle.forward();
    return dot(oracle.act, oracle.dact);
  };
  expect_gradient(oracle.gate_up, oracle.dgate_up, loss);
  expect_gradient(oracle.weights, oracle.dweights, loss);

  Swiglu<float> product;
  product.forward();
  product.backward();
  expect_close(product.act, oracle.act, 8);
  expect_close(product.dgate_up, oracle.dgate_up, 16);
  expect_close(product.dweights, oracle.dweights, 32);
  expect_close(product.act_again, oracle.act_again, 8);
  for (int64_t i = 0; i < product.act.size(); ++i) ASSERT_EQ(product.act_again[i], product.act[i]);
}

TEST(Swiglu, BackwardWorksInPlace) {
  Swiglu<float> apart, together;
  apart.backward();
  swiglu_backward(together.ctx, {.gate_up = together.gate_up,
                                 .row_weights = together.weights,
                                 .dact = together.dact,
                                 .dgate_up = together.gate_up,
                                 .drow_weights = together.dweights,
                                 .act = together.dact});
  for (int64_t i = 0; i < apart.dgate_up.size(); ++i) ASSERT_EQ(together.gate_up[i], apart.dgate_up[i]);
  for (int64_t i = 0; i < apart.act_again.size(); ++i) ASSERT_EQ(together.dact[i], apart.act_again[i]);
}

TEST(Embedding, LooksUpAndSumsBack) {
  TestCtx ctx;
  constexpr int64_t kVocab = 6, kWidth = 70;
  Buffer<int32_t> ids({4});
  ids[0] = 5, ids[1] = 0, ids[2] = 5, ids[3] = 2;
  Buffer<float> table = Buffer<float>::random({kVocab, kWidth}, "table"), y({4, kWidth});
  embedding_forward(ctx, ids, table, y);
  Buffer<int32_t> unique({3}), begin({4}), rows({4});
  unique[0] = 0, unique[1] = 2, unique[2] = 5;
  begin[1] = 1, begin[2] = 2, begin[3] = 4;
  rows[0] = 1, rows[1] = 3, rows[2] = 0, rows[3] = 2;
  Buffer<float> dtable({kVocab, kWidth}, 9);
  EmbeddingBackward backward{.index = {unique, begin, rows}, .dy = y, .dtable = dtable};
  embedding_backward(ctx, backward);
  for (int64_t i = 0; i < kWidth; ++i) {
    EXPECT_EQ(y[2 * kWidth + i], table[5 * kWidth + i]);
    EXPECT_EQ(dtable[5 * kWidth + i], 2 * table[5 * kWidth + i]);
    EXPECT_EQ(dtable[2 * kWidth + i], table[2 * kWidth + i]);
    EXPECT_EQ(dtable[1 * kWidth + i], 0);
  }
  backward.accumulate = true;
  embedding_backward(ctx, backward);
  EXPECT_EQ(dtable[5 * kWidth], 4 * table[5 * kWidth]);
  EXPECT_EQ(dtable[1 * kWidth], 0);
}

constexpr int64_t kVocab = 33;

template <class S>
struct Loss {
  TestCtx ctx;
  Buffer<S> logits = Buffer<S>::random({kRows, kVocab}, "logits", 4);
  Buffer<int32_t> targets{{kRows}};
  Buffer<double> losses{{kRows}};
  Tensor weights = {};

  Loss() {
    for (int64_t t = 0; t < kRows; ++t) targets[t] = static_cast<int32_t>(7 * t % kVocab);
  }
  void gradient(const Tensor& dlogits) {
    cross_entropy(
        ctx,
        {.logits = logits, .targets = targets, .losses = losses, .dlogits = dlogits, .weights = weights, .scale = 0.5});
  }
  double sum() {
    cross_entropy(ctx, {.logits = logits, .targets = targets, .losses = losses, .weights = weights});
    double total = 0;
    for (int64_t t = 0; t < kRows; ++t) total += losses[t];
    return total;
  }
};

TEST(CrossEntropy, LossAndGradient) {
  Loss<double> oracle;
  const double sum = oracle.sum();
  double expected = 0;
  for (int64_t t = 0; t < kRows; ++t) {
    double all = 0;
    for (int64_t v = 0; v < kVocab; ++v) all += std::exp(oracle.logits[t * kVocab + v]);
    expected -= std::log(std::exp(oracle.logits[t * kVocab + oracle.targets[t]]) / all);
  }
  EXPECT_NEAR(sum, expected, 1e-10);

  Buffer<double> gradient({kRows, kVocab});
  oracle.gradient(gradient);
  expect_gradient(oracle.logits, gradient, [&] { return 0.5 * oracle.sum(); });

  Loss<float> product;
  product.gradient(product.logits);
  expect_close(product.logits, gradient, 16);
  for (int64_t t = 0; t < kRows; ++t) EXPECT_NEAR(product.losses[t], oracle.losses[t], 2e-6);
}

TEST(CrossEntropy, WeightsScaleALossAndItsGradient) {
  Buffer<float> weights({kRows});
  for (int64_t t = 0; t < kRows; ++t) weights[t] = static_cast<float>(t % 4) * 0.75F;  // some 0
  Loss<double> oracle, plain;
  oracle.weights = weights;
  plain.sum();
  double expected = 0;
  for (int64_t t = 0; t < kRows; ++t) expected += static_cast<double>(weights[t]) * plain.losses[t];
  EXPECT_NEAR(oracle.sum(), expected, 1e-10);

  Buffer<double> gradient({kRows, kVocab});
  oracle.gradient(gradient);
  expect_gradient(oracle.logits, gradient, [&] { return 0.5 * oracle.sum(); });

  Loss<float> product;
  product.weights = weights;
  product.gradient(product.logits);
  expect_close(product.logits, gradient, 16);
  for (int64_t t = 0; t < kRows; ++t) EXPECT_NEAR(product.losses[t], oracle.losses[t], 5e-6);
}

TEST(CrossEntropy, WeightsOfOneChangeNoBit) {
  Buffer<float> weights({kRows}, 1);
  Loss<float> plain, weighted;
  weighted.weights = weights;
  plain.gradient(plain.logits);
  weighted.gradient(weighted.logits);
  for (int64_t i = 0; i < kRows * kVocab; ++i) ASSERT_EQ(weighted.logits[i], plain.logits[i]);
  for (int64_t t = 0; t < kRows; ++t) ASSERT_EQ(weighted.losses[t], plain.losses[t]);
}

TEST(CrossEntropy, GradientWorksInPlace) {
  Loss<float> apart, together;
  Buffer<float> gradient({kRows, kVocab});
  apart.gradient(gradient);
  together.gradient(together.logits);
  for (int64_t i = 0; i < gradient.size(); ++i) ASSERT_EQ(together.logits[i], gradient[i]);
}

TEST(CrossEntropy, LargeLogits) {
  Loss<float> loss;
  for (int64_t i = 0; i < loss.logits.size(); ++i) loss.logits[i] = i % 2 ? 1e30f : -1e30f;
  EXPECT_FALSE(std::isnan(loss.sum()));
}

}  // namespace
}  // namespace mixtune
