#include "kernels/attention.h"

#include "kernels/testing.h"

namespace mixtune {
namespace {

struct Case {
  int64_t q_heads, kv_heads, head_dim, window;
  std::vector<int32_t> offsets;
  int64_t rows;  // rows past the last offset are dead
};

const std::vector<Case> kCases = {{4, 2, 6, 0, {0, 5, 6, 150}, 160},
                                  {3, 3, 4, 7, {0, 100, 131}, 131},
                                  {4, 1, 8, 64, {0, 200}, 256},
                                  {2, 2, 3, 1, {0, 9, 17}, 20},
                                  {1, 1, 64, 500, {0, 70}, 70}};

template <class S>
struct Attention {
  const Case& c;
  TestCtx ctx;
  int64_t width = (c.q_heads + 2 * c.kv_heads) * c.head_dim, out_width = c.q_heads * c.head_dim;
  Buffer<S> qkv = Buffer<S>::random({c.rows, width}, "qkv"), dout = Buffer<S>::random({c.rows, out_width}, "dout");
  Buffer<S> out{{c.rows, out_width}, S(9)}, lse{{c.rows, c.q_heads}}, dqkv{{c.rows, width}, S(9)};

  AttentionShape shape() const {
    return {c.q_heads, c.kv_heads, c.head_dim, c.window,
            host_tensor(c.offsets.data(), {static_cast<int64_t>(c.offsets.size())})};
  }
  void forward() { attention_forward(ctx, shape(), qkv, out, lse); }
  void backward() { attention_backward(ctx, shape(), {qkv, out, lse, dout, dqkv}); }

  // The definition: token by token, head by head.
  void expect_definition() {
    for (int64_t t = 0; t < c.rows; ++t)
      for (int64_t head = 0; head < c.q_heads; ++head) expect_head(t, head);
  }

  void expect_head(int64_t t, int64_t head) {
    const int64_t d = c.head_dim, kv = head / (c.q_heads / c.kv_heads);
    std::vector<double> expected(d, 0);
    double sum = 0;
    int64_t begin = -1;
    for (size_t i = 0; i + 1 < c.offsets.size(); ++i)
      if (t >= c.offsets[i] && t < c.offsets[i + 1]) begin = c.offsets[i];
    if (begin >= 0 && c.window > 0) begin = std::max(begin, t - c.window + 1);
    for (int64_t j = begin; begin >= 0 && j <= t; ++j) {
      double score = 0;
      for (int64_t i = 0; i < d; ++i)
        score += qkv[t * width + head * d + i] * qkv[j * width + (c.q_heads + kv) * d + i];
      const double p = std::exp(score / std::sqrt(static_cast<double>(d)));
      sum += p;
      for (int64_t i = 0; i < d; ++i) expected[i] += p * qkv[j * width + (c.q_heads + c.kv_heads + kv) * d + i];
    }
    for (int64_t i = 0; i < d; ++i)
      ASSERT_NEAR(out[t * out_width + head * d + i], begin < 0 ? 0 : expected[i] / sum, 1e-12);
    if (begin >= 0) {
      ASSERT_NEAR(lse[t * c.q_heads + head], std::log(sum), 1e-12);
    }
  }
};

TEST(Attention, ForwardIsTheDefinition) {
  for (const Case& c : kCases) {
    Attention<double> oracle{c};
    oracle.forward();
    oracle.expect_definition();
    Attention<float> product{c};
    product.forward();
    expect_close(product.out, oracle.out, 32);
    expect_close(product.lse, oracle.lse, 32);
  }
}

TEST(Attention, BackwardMatchesDifferences) {
  for (const Case& c : kCases) {
    Attention<double> oracle{c};
    oracle.forward();
    oracle.backward();
    expect_gradient(oracle.qkv, oracle.dqkv, [&] {
      oracle.forward();
      return dot(oracle.out, oracle.dout);
    });
    Attention<float> product{c};
    product.forward();
    product.backward();
    expect_close(product.dqkv, oracle.dqkv, 64);
  }
}

TEST(Attention, DocumentsDoNotSeeEachOther) {
  Attention<float> before{kCases[0]}, after{kCases[0]};
  before.forward();
  before.backward();
  for (int64_t i = 0; i < 5 * after.width; ++i) after.qkv[i] += 1;  // the first document alone
  after.forward();
  after.backward();
  for (int64_t i = 5 * before.out_width; i < before.out.size(); ++i) ASSERT_EQ(before.out[i], after.out[i]);
  for (int64_t i = 5 * before.width; i < before.dqkv.size(); ++i) ASSERT_EQ(before.dqkv[i], after.dqkv[i]);
}

}  // namespace
}  // namespace mixtune
