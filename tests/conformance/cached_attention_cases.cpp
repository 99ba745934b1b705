// Attention over a cache: what is appended, and what tokens see.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "conformance/cases.h"
#include "conformance/tolerances.h"
#include "kernels/attention/cached_attention.h"

namespace mixtune {
namespace {

struct CacheHeads {
  int64_t q, kv, dim;
};

// `tokens` of each of `sequences` go on with it, from another position of `room` each; and `dead` rows.
struct CacheSizes {
  int64_t sequences, tokens, room, dead = 0;

  int64_t live() const { return sequences * tokens; }
  int64_t rows() const { return live() + dead; }
  // The first sequence has only these tokens, the last fills the room.
  int64_t position(int64_t row) const {
    if (row >= live()) return 0;
    const int64_t sequence = row / tokens, last = std::max<int64_t>(sequences - 1, 1);
    return (sequences == 1 ? room - tokens : sequence * (room - tokens) / last) + row % tokens;
  }
};

// Weights of keys and their sum in another order; rounded once in bf16.
void cached_attention_case(Conformance& c, const CacheHeads& heads, int64_t window, const CacheSizes& sizes) {
  const int64_t out_width = heads.q * heads.dim, width = out_width + 2 * heads.kv * heads.dim;
  const Shape cache = {sizes.sequences + 1, heads.kv, sizes.room, heads.dim};
  const Operand qkv = c.random("qkv", {sizes.rows(), width});
  const Operand keys = c.random("keys", cache), values = c.random("values", cache);
  const Operand sequences = c.integers("sequences", {sizes.rows()}, [&](int64_t row) {
    return row < sizes.live() ? sizes.sequences - row / sizes.tokens : 0;
  });
  const Operand positions = c.integers("positions", {sizes.rows()}, [&](int64_t row) { return sizes.position(row); });
  const Operand out = c.output("out", {sizes.rows(), out_width});
  c.run([&](Ctx& ctx, Side side) {
    const CachedTokens tokens = {.qkv = qkv[side],
                                 .sequences = sequences[side],
                                 .positions = positions[side],
                                 .live = sizes.live(),
                                 .keys = keys[side],
                                 .values = values[side]};
    append_to_cache(ctx, tokens);
    cached_attention(ctx, tokens, window, out[side]);
  });
  c.expect_equal(keys);
  c.expect_equal(values);
  const double sums = 4 + (std::sqrt(static_cast<double>(heads.dim)) + std::sqrt(static_cast<double>(sizes.room))) / 4;
  c.expect_close(out, by_dtype(c, 2 * sums));
}

ConformanceCase cached(const char* name, CacheHeads heads, int64_t window, CacheSizes sizes) {
  return {"cached_attention", name, [=](Conformance& c) {
            cached_attention_case(c, heads, window, sizes);
          }};
}

}  // namespace

ConformanceCases cached_attention_cases() {
  return {
      cached("mixtral_heads", {32, 8, 128}, 0, {7, 1, 1000, 121}),
      cached("mixtral_heads_one_token", {32, 8, 128}, 0, {1, 1, 5000, 127}),
      cached("mixtral_heads_many_tokens", {32, 8, 128}, 0, {3, 70, 300, 46}),
      cached("window_1", {8, 2, 64}, 1, {5, 1, 200}),
      cached("window_100", {8, 2, 64}, 100, {5, 3, 777, 1}),
      cached("window_beyond_sequences", {4, 2, 64}, int64_t{1} << 40, {3, 1, 130}),
      cached("head_dim_6", {4, 2, 6}, 7, {4, 2, 50, 3}),
      cached("head_dim_33", {2, 1, 33}, 0, {2, 1, 129}),
      cached("head_dim_136", {3, 3, 136}, 0, {2, 1, 400}),
      cached("head_dim_256", {4, 1, 256}, 0, {9, 1, 400}),
      cached("20_heads_of_one", {20, 1, 80}, 0, {2, 2, 300, 4}),
      cached("200_sequences", {8, 2, 128}, 0, {200, 1, 260, 56}),
      cached("one_position", {32, 8, 128}, 0, {1, 1, 1, 127}),
      cached("no_token", {4, 2, 64}, 0, {0, 1, 10, 128}),
  };
}

}  // namespace mixtune
