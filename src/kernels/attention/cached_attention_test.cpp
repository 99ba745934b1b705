#include "kernels/attention/cached_attention.h"

#include "kernels/attention/attention.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

struct CachedCase {
  int64_t q_heads, kv_heads, head_dim, window;
};

const std::vector<CachedCase> kCachedCases = {{4, 2, 6, 0}, {3, 3, 4, 7}, {8, 1, 8, 64}, {2, 2, 4, 1}, {6, 2, 16, 500}};
const std::vector<int32_t> kCachedLengths = {5, 1, 144};
constexpr int64_t kCachedRows = 150, kCachedRoom = 160;

// Documents, whose attention is also computed as attention.h does: all at once.
template <class S>
struct CachedAttention {
  const CachedCase& c;
  TestCtx ctx;
  int64_t width = (c.q_heads + 2 * c.kv_heads) * c.head_dim, out_width = c.q_heads * c.head_dim;
  Buffer<S> qkv = Buffer<S>::random({kCachedRows, width}, "qkv");
  Buffer<S> keys{{4, c.kv_heads, kCachedRoom, c.head_dim}, S(9)},
      values{{4, c.kv_heads, kCachedRoom, c.head_dim}, S(9)};
  Buffer<S> out{{kCachedRows, out_width}, S(9)};

  // Row t of the documents is that of sequence `3 - document`.
  std::vector<int32_t> sequences, positions;
  CachedAttention(const CachedCase& one) : c(one) {
    for (size_t document = 0; document < kCachedLengths.size(); ++document)
      for (int32_t i = 0; i < kCachedLengths[document]; ++i) {
        sequences.push_back(3 - static_cast<int32_t>(document));
        positions.push_back(i);
      }
  }

  // Appends rows [begin, end) and computes their attention; `dead` rows behind them are the documents' too.
  void extend(int64_t begin, int64_t end, int64_t dead = 0) {
    const int64_t rows = end - begin + dead;
    const CachedTokens tokens = {.qkv = qkv.tensor().slice(begin, rows),
                                 .sequences = host_tensor(sequences.data() + begin, {rows}),
                                 .positions = host_tensor(positions.data() + begin, {rows}),
                                 .live = end - begin,
                                 .keys = keys,
                                 .values = values};
    append_to_cache(ctx, tokens);
    cached_attention(ctx, tokens, c.window, out.tensor().slice(begin, rows));
  }

  Buffer<S> at_once() {
    const std::vector<int32_t> offsets = {0, 5, 6, 150};
    const Tensor at = host_tensor(offsets.data(), {4});
    Buffer<S> all({kCachedRows, out_width}), lse({kCachedRows, c.q_heads});
    attention_forward(ctx, {c.q_heads, c.kv_heads, c.head_dim, c.window, at, at}, qkv, all, lse);
    return all;
  }
};

TEST(CachedAttention, IsThatOfTheWholeDocument) {
  for (const CachedCase& c : kCachedCases) {
    CachedAttention<double> one_by_one(c);
    CachedAttention<float> product(c);
    for (int64_t t = 0; t < kCachedRows; ++t) {
      one_by_one.extend(t, t + 1);
      product.extend(t, t + 1);
    }
    Buffer<double> all = one_by_one.at_once();
    for (int64_t i = 0; i < all.size(); ++i) ASSERT_NEAR(one_by_one.out[i], all[i], 1e-12) << i;
    expect_close(product.out, all, 32);
  }
}

TEST(CachedAttention, OfManyTokensIsThatOfEach) {
  for (const CachedCase& c : kCachedCases) {
    CachedAttention<double> pieces(c);
    int64_t begin = 0;
    for (const int64_t end : {3, 40, 41, 150}) {
      pieces.extend(begin, end);
      begin = end;
    }
    Buffer<double> all = pieces.at_once();
    for (int64_t i = 0; i < all.size(); ++i) ASSERT_NEAR(pieces.out[i], all[i], 1e-12) << i;
  }
}

TEST(CachedAttention, DeadRowsAreZeroAndAppendNothing) {
  CachedAttention<float> attention(kCachedCases[0]);
  attention.extend(0, 4, 2);
  for (int64_t i = 0; i < attention.out.size(); ++i) {
    const int64_t row = i / attention.out_width;
    if (row == 4 || row == 5) {
      EXPECT_EQ(attention.out[i], 0);
    } else {
      EXPECT_EQ(attention.out[i] == 9, row > 5);
    }
  }
  const CachedCase& c = attention.c;
  for (int64_t i = 0; i < attention.keys.size(); ++i) {
    const int64_t position = i / c.head_dim % kCachedRoom, sequence = i / c.head_dim / kCachedRoom / c.kv_heads;
    EXPECT_EQ(attention.keys[i] == 9, sequence != 3 || position > 3) << i;
  }
}

}  // namespace
}  // namespace mixtune
