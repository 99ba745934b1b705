#include "kernels/rope.h"

#include "kernels/testing.h"

namespace mixtune {
namespace {

constexpr int64_t kDim = 6, kQHeads = 2, kKvHeads = 1, kQkvWidth = (kQHeads + 2 * kKvHeads) * kDim;

Buffer<int32_t> positions() {
  Buffer<int32_t> p({4});
  p[0] = 0, p[1] = 1, p[2] = 1000, p[3] = 0;  // restarts at a document
  return p;
}

template <class S>
Buffer<S> turned(bool there_and_back) {
  TestCtx ctx;
  Buffer<int32_t> p = positions();
  Buffer<S> table({4, kDim}), qkv = Buffer<S>::random({4, kQkvWidth}, "qkv");
  rope_table(ctx, p, 1e4, table);
  rope(ctx, {.qkv = qkv, .table = table, .q_heads = kQHeads, .kv_heads = kKvHeads});
  if (there_and_back)
    rope(ctx, {.qkv = qkv, .table = table, .q_heads = kQHeads, .kv_heads = kKvHeads, .inverse = true});
  return qkv;
}

TEST(Rope, TurnsEachPairByItsAngleAndLeavesValues) {
  const Buffer<double> start = Buffer<double>::random({4, kQkvWidth}, "qkv"), end = turned<double>(false);
  Buffer<int32_t> p = positions();
  for (int64_t t = 0; t < 4; ++t)
    for (int64_t head = 0; head < 4; ++head)
      for (int64_t i = 0; i < kDim / 2; ++i) {
        const double angle = head < 3 ? p[t] * std::pow(1e4, -2.0 * i / kDim) : 0;
        const int64_t a = t * kQkvWidth + head * kDim + i, b = a + kDim / 2;
        EXPECT_NEAR(end[a], start[a] * std::cos(angle) - start[b] * std::sin(angle), 1e-10);
        EXPECT_NEAR(end[b], start[b] * std::cos(angle) + start[a] * std::sin(angle), 1e-10);
      }
}

TEST(Rope, InverseUndoes) {
  const Buffer<double> start = Buffer<double>::random({4, kQkvWidth}, "qkv"), end = turned<double>(true);
  for (int64_t i = 0; i < start.size(); ++i) EXPECT_NEAR(end[i], start[i], 1e-14);
}

TEST(Rope, ProductMatchesOracleUpToTheAngleInFp32) {
  // An fp32 angle of 1000 is off by up to 1000 eps.
  expect_close(turned<float>(false), turned<double>(false), 2000);
}

}  // namespace
}  // namespace mixtune
