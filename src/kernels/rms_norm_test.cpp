#include "kernels/rms_norm.h"

#include "kernels/testing.h"

namespace mixtune {
namespace {

constexpr int64_t kNormRows = 200, kNormWidth = 37;  // more than one block of the weight gradient
constexpr double kEps = 1e-3;

template <class S>
struct Norm {
  TestCtx ctx;
  Buffer<S> x = Buffer<S>::random({kNormRows, kNormWidth}, "x"),
            delta = Buffer<S>::random({kNormRows, kNormWidth}, "delta");
  Buffer<S> weight = Buffer<S>::random({kNormWidth}, "weight"), dy = Buffer<S>::random({kNormRows, kNormWidth}, "dy");
  Buffer<S> r{{kNormRows, kNormWidth}}, y{{kNormRows, kNormWidth}}, rstd{{kNormRows}};

  void forward(bool with_delta) {
    rms_norm_forward(ctx, {.x = x,
                           .delta = with_delta ? delta.tensor() : Tensor{},
                           .weight = weight,
                           .eps = kEps,
                           .r = with_delta ? r.tensor() : Tensor{},
                           .y = y,
                           .rstd = rstd});
  }
};

TEST(RmsNorm, ForwardIsTheFormula) {
  Norm<double> norm;
  norm.forward(true);
  for (int64_t t = 0; t < kNormRows; ++t) {
    double squares = 0;
    for (int64_t i = t * kNormWidth; i < (t + 1) * kNormWidth; ++i) {
      EXPECT_EQ(norm.r[i], norm.x[i] + norm.delta[i]);
      squares += norm.r[i] * norm.r[i];
    }
    for (int64_t i = 0; i < kNormWidth; ++i)
      EXPECT_NEAR(norm.y[t * kNormWidth + i],
                  norm.r[t * kNormWidth + i] / std::sqrt(squares / kNormWidth + kEps) * norm.weight[i], 1e-12);
  }
}

TEST(RmsNorm, ProductMatchesOracle) {
  Norm<double> oracle;
  Norm<float> product;
  for (const bool with_delta : {false, true}) {
    oracle.forward(with_delta);
    product.forward(with_delta);
    expect_close(product.y, oracle.y, 16);
    expect_close(product.rstd, oracle.rstd, 16);
  }
}

TEST(RmsNorm, RecomputeGivesTheSameBits) {
  Norm<float> norm;
  norm.forward(false);
  Buffer<float> again({kNormRows, kNormWidth});
  rms_norm_recompute(norm.ctx, norm.x, norm.weight, norm.rstd, again);
  for (int64_t i = 0; i < again.size(); ++i) ASSERT_EQ(again[i], norm.y[i]);
}

TEST(RmsNorm, BackwardMatchesDifferencesAndAdds) {
  Norm<double> norm;
  norm.forward(false);
  Buffer<double> dx({kNormRows, kNormWidth}, 3), dweight({kNormWidth}, 5);
  rms_norm_backward(norm.ctx, {.r = norm.x,
                               .weight = norm.weight,
                               .rstd = norm.rstd,
                               .dy = norm.dy,
                               .dr = dx,
                               .dweight = dweight,
                               .accumulate = true});
  for (int64_t i = 0; i < dx.size(); ++i) dx[i] -= 3;
  for (int64_t i = 0; i < dweight.size(); ++i) dweight[i] -= 5;
  const auto loss = [&] {
    norm.forward(false);
    return dot(norm.y, norm.dy);
  };
  expect_gradient(norm.x, dx, loss);
  expect_gradient(norm.weight, dweight, loss);

  Norm<float> product;
  product.forward(false);
  Buffer<float> product_dx({kNormRows, kNormWidth}), product_dweight({kNormWidth});
  rms_norm_backward(product.ctx, {.r = product.x,
                                  .weight = product.weight,
                                  .rstd = product.rstd,
                                  .dy = product.dy,
                                  .dr = product_dx,
                                  .dweight = product_dweight});
  expect_close(product_dx, dx, 32);
  expect_close(product_dweight, dweight, 32);
}

}  // namespace
}  // namespace mixtune
