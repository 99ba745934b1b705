#include "kernels/attention/attention.h"

#include "kernels/attention/attention_plans.h"
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
    const Tensor offsets = host_tensor(c.offsets.data(), {static_cast<int64_t>(c.offsets.size())});
    return {c.q_heads, c.kv_heads, c.head_dim, c.window, offsets, offsets};
  }
  void forward() { attention_forward(ctx, shape(), qkv, out, lse); }
  void backward() { attention_backward(ctx, shape(), {qkv, out, lse, dout, dqkv}); }

  // Expects what the definition says, token by token, head by head.
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

constexpr AttentionShape kMixtral = {.q_heads = 32, .kv_heads = 8, .head_dim = 128, .window = 0};

TEST(AttentionPlans, OneIsBuiltForBatchesLikeTheFirst) {
  const AttentionPlanKey batch(Pass::kBackward, kMixtral, {.tokens = 5000, .longest_document = 700, .documents = 9});
  const AttentionPlanKey plan = plan_around(batch);
  EXPECT_TRUE(plan.serves(batch));
  EXPECT_EQ(plan.documents, 16);
  EXPECT_EQ(plan.longest, 1024);
  EXPECT_EQ(plan.tokens, 5120);
  const AttentionPlanKey smallest =
      plan_around({Pass::kForward, kMixtral, {.tokens = 1, .longest_document = 1, .documents = 1}});
  EXPECT_EQ(smallest.documents, 1);
  EXPECT_EQ(smallest.longest, kRowAlignment);
  EXPECT_EQ(smallest.tokens, kRowAlignment);
}

TEST(AttentionPlans, ServeWhatIsNoLarger) {
  const AttentionPlanKey plan(Pass::kBackward, kMixtral, {.tokens = 4096, .longest_document = 1024, .documents = 16});
  AttentionPlanKey batch = plan;
  EXPECT_TRUE(plan.serves(batch));
  for (int64_t AttentionPlanKey::*limit :
       {&AttentionPlanKey::documents, &AttentionPlanKey::longest, &AttentionPlanKey::tokens}) {
    batch = plan;
    batch.*limit -= 1;
    EXPECT_TRUE(plan.serves(batch));
    batch.*limit += 2;
    EXPECT_FALSE(plan.serves(batch));
  }
  batch = plan;
  batch.window = 100;
  EXPECT_FALSE(plan.serves(batch));
  batch = plan;
  batch.pass = Pass::kForward;
  EXPECT_FALSE(plan.serves(batch));
}

TEST(AttentionPlans, OfEqualDocumentsServeNothingElse) {
  const BatchLimits limits = {.tokens = 2048, .longest_document = 500, .documents = 300};
  const std::vector<AttentionPlanKey> plans = warm_up_equal_plans(kMixtral, limits);
  ASSERT_EQ(plans.size(), 2u);
  for (const AttentionPlanKey& plan : plans) {
    EXPECT_TRUE(plan.serves({plan.pass, kMixtral, {.tokens = 2000, .longest_document = 500, .documents = 4}}));
    EXPECT_FALSE(plan.serves({plan.pass, kMixtral, {.tokens = 1999, .longest_document = 500, .documents = 4}}));
    EXPECT_FALSE(plan.serves({plan.pass, kMixtral, {.tokens = 2000, .longest_document = 501, .documents = 4}}));
    EXPECT_FALSE(plan.serves({plan.pass, kMixtral, {.tokens = 1500, .longest_document = 500, .documents = 3}}));
    EXPECT_FALSE(plan.serves({plan.pass, kMixtral, {.tokens = 2000, .longest_document = 400, .documents = 5}}));
    EXPECT_LE(2000 * (8 * plan.out_width() + 4 * plan.q_heads) + 256, plan.backward_bytes());  // what cuDNN takes
  }
  EXPECT_EQ(warm_up_equal_plans(kMixtral, {4096, 1024, 3}).front().documents, 3);
  EXPECT_TRUE(warm_up_equal_plans(kMixtral, {128, 60, 2}).empty());
}

TEST(AttentionPlans, WarmUpHasOneForEveryBatch) {
  for (const BatchLimits& limits : {BatchLimits{16384, 4096, 300}, BatchLimits{8192, 8192, 1}, BatchLimits{128, 60, 2},
                                    BatchLimits{65536, 32768, 5000}, BatchLimits{16384, 4096, 4}}) {
    const std::vector<AttentionPlanKey> plans = warm_up_plans(kMixtral, limits);
    EXPECT_LE(plans.size(), 50);
    for (const Pass pass : {Pass::kForward, Pass::kBackward}) {
      for (const BatchLimits& batch : {limits, BatchLimits{1, 1, 1}, BatchLimits{limits.tokens, 2, limits.documents}})
        EXPECT_TRUE(std::any_of(plans.begin(), plans.end(), [&](const AttentionPlanKey& plan) {
          return plan.serves({pass, kMixtral, batch});
        }));
      for (int64_t documents = 1; documents <= limits.documents; documents *= 3) {
        // A full batch of equal documents needs no plan more than 4 by 4 times too large, and a little for rounding.
        const int64_t longest = std::min(limits.longest_document, limits.tokens / documents);
        if (documents * longest < limits.tokens / 2) continue;
        int64_t rows = std::numeric_limits<int64_t>::max();
        for (const AttentionPlanKey& plan : plans)
          if (plan.serves({pass, kMixtral, {limits.tokens, longest, documents}})) rows = std::min(rows, plan.rows());
        EXPECT_LE(rows, 20 * std::max(limits.tokens, documents * kRowAlignment)) << documents << " documents";
      }
    }
  }
}

}  // namespace
}  // namespace mixtune
