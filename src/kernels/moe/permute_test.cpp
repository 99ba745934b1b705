#include "kernels/moe/permute.h"

#include <numeric>

#include "kernels/testing.h"

namespace mixtune {
namespace {

constexpr int64_t kTokens = 300, kSlots = 2, kExperts = 5, kWidth = 3;

// Expert 3 gets nothing, expert 0 far more than its share; every seventh token is routed nowhere.
struct Permutation {
  TestCtx ctx;
  Buffer<int32_t> experts{{kTokens, kSlots}}, begin{{kExperts}}, count{{kExperts}}, row_of_slot{{kTokens, kSlots}};
  int64_t rows = 0;
  Buffer<int32_t> slot_of_row{{0}};

  Permutation() {
    for (int64_t t = 0; t < kTokens; ++t) {
      const bool dead = t % 7 == 6;
      experts[2 * t] = dead ? -1 : 0;
      experts[2 * t + 1] = dead ? -1 : static_cast<int32_t>(std::array{1, 2, 4}[t % 3]);
    }
    rows = permute_map(ctx, {.experts = experts, .begin = begin, .count = count, .row_of_slot = row_of_slot});
    slot_of_row = Buffer<int32_t>({rows});
    permute_invert(ctx, row_of_slot, slot_of_row);
  }
};

TEST(Permute, RowsAreOrderedByExpertThenToken) {
  Permutation p;
  EXPECT_EQ(p.rows % kRowAlignment, 0);
  EXPECT_EQ(p.count[3], 0);
  int64_t mapped = 0;
  for (int64_t e = 0; e < kExperts; ++e) {
    EXPECT_EQ(p.begin[e] % kRowAlignment, 0);
    for (int64_t r = p.begin[e]; r < p.begin[e] + p.count[e]; ++r, ++mapped) {
      const int32_t slot = p.slot_of_row[r];
      ASSERT_GE(slot, 0);
      EXPECT_EQ(p.experts[slot], e);
      EXPECT_EQ(p.row_of_slot[slot], r);
      if (r > p.begin[e]) {
        EXPECT_LT(p.slot_of_row[r - 1], slot);
      }
    }
    const int64_t end = e + 1 < kExperts ? p.begin[e + 1] : p.rows;
    for (int64_t r = p.begin[e] + p.count[e]; r < end; ++r) EXPECT_EQ(p.slot_of_row[r], -1);
  }
  EXPECT_EQ(mapped, 2 * (kTokens - kTokens / 7));
}

TEST(Permute, RowsHaveTheNumbersOfTheirPairs) {
  Permutation p;
  constexpr int64_t kFirst = int64_t{1} << 40;
  Buffer<int64_t> numbers({p.rows}, 9);
  number_rows(p.ctx, p.slot_of_row, kFirst, numbers);
  for (int64_t r = 0; r < p.rows; ++r)
    ASSERT_EQ(numbers[r], p.slot_of_row[r] < 0 ? -1 : kFirst + p.slot_of_row[r]) << r;
}

TEST(Permute, RowsAndWeightsThereAndBack) {
  Permutation p;
  Buffer<float> x = Buffer<float>::random({kTokens, kWidth}, "x"), rows({p.rows, kWidth}, 9);
  Buffer<float> weights = Buffer<float>::random({kTokens, kSlots}, "w"), row_weights({p.rows}, 9);
  permute_rows(p.ctx, x, p.slot_of_row, kSlots, rows);
  permute_weights(p.ctx, weights, p.slot_of_row, row_weights);
  for (int64_t r = 0; r < p.rows; ++r) {
    const int32_t slot = p.slot_of_row[r];
    EXPECT_EQ(row_weights[r], slot < 0 ? 0 : weights[slot]);
    for (int64_t i = 0; i < kWidth; ++i) EXPECT_EQ(rows[r * kWidth + i], slot < 0 ? 0 : x[slot / kSlots * kWidth + i]);
  }

  Buffer<float> residual = Buffer<float>::random({kTokens, kWidth}, "r"), y({kTokens, kWidth}, 9);
  Buffer<float> weights_back({kTokens, kSlots}, 9);
  unpermute_rows(p.ctx, rows, p.row_of_slot, residual, y);
  unpermute_weights(p.ctx, row_weights, p.row_of_slot, weights_back);
  for (int64_t t = 0; t < kTokens; ++t) {
    const bool dead = t % 7 == 6;
    for (int64_t slot = 2 * t; slot < 2 * t + 2; ++slot) EXPECT_EQ(weights_back[slot], dead ? 0 : weights[slot]);
    for (int64_t i = t * kWidth; i < (t + 1) * kWidth; ++i)
      EXPECT_EQ(y[i], dead ? residual[i] : residual[i] + x[i] + x[i]);
  }
  unpermute_rows(p.ctx, rows, p.row_of_slot, {}, y);
  EXPECT_EQ(y[0], x[0] + x[0]);
  EXPECT_EQ(y[6 * kWidth], 0);
}

// The rows that have a target leave a batch, and their gradients come back.
TEST(Permute, RowsByNumberAndBack) {
  TestCtx ctx;
  Buffer<int32_t> numbers({3}), place({6, 1});
  numbers[0] = 4, numbers[1] = 0, numbers[2] = 5;
  Buffer<float> x = Buffer<float>::random({6, kWidth}, "x"), some({3, kWidth}, 9), back({6, kWidth}, 9);
  permute_rows(ctx, x, numbers, 1, some);
  permute_invert(ctx, numbers, place);
  unpermute_rows(ctx, some, place, {}, back);
  for (int64_t r = 0; r < 6; ++r)
    for (int64_t i = r * kWidth; i < (r + 1) * kWidth; ++i) EXPECT_EQ(back[i], r == 0 || r > 3 ? x[i] : 0);
}

TEST(Permute, OneExpertTakesAll) {
  TestCtx ctx;
  Buffer<int32_t> experts({200, 1}, 1), begin({3}), count({3}), row_of_slot({200, 1});
  EXPECT_EQ(permute_map(ctx, {.experts = experts, .begin = begin, .count = count, .row_of_slot = row_of_slot}), 256);
  EXPECT_EQ(count[1], 200);
  EXPECT_EQ(begin[2], 256);
  for (int32_t t = 0; t < 200; ++t) EXPECT_EQ(row_of_slot[t], t);
}

TEST(Permute, NothingRoutedGivesNoRows) {
  TestCtx ctx;
  Buffer<int32_t> experts({4, 2}, -1), begin({3}), count({3}), row_of_slot({4, 2});
  EXPECT_EQ(permute_map(ctx, {.experts = experts, .begin = begin, .count = count, .row_of_slot = row_of_slot}), 0);
  EXPECT_EQ(row_of_slot[7], -1);
}

TEST(Permute, MetaSupposesRows) {
  TestCtx ctx;
  ctx.device.type = DeviceType::kMeta;
  Buffer<int32_t> experts({1000, 2}), begin({8}), count({8}), row_of_slot({1000, 2});
  const PermuteMap map = {.experts = experts, .begin = begin, .count = count, .row_of_slot = row_of_slot};
  const auto expect_rows_of_the_first = [&](int64_t rows) {
    EXPECT_EQ(permute_map(ctx, map), rows);
    for (int64_t e = 0; e < 8; ++e) {
      EXPECT_EQ(begin[e], e == 0 ? 0 : rows);
      EXPECT_EQ(count[e], e == 0 ? rows : 0);
    }
  };
  expect_rows_of_the_first(8 * 256);
  ctx.routing_share = kWorstRouting;
  expect_rows_of_the_first(23 * kRowAlignment);  // each expert's rows end one past a multiple, as far as possible
}

TEST(Permute, MetaSupposesNoMoreRowsThanTheLimit) {
  TestCtx ctx;
  ctx.device.type = DeviceType::kMeta;
  Buffer<int32_t> experts({1000, 2}), begin({8}), count({8}), row_of_slot({1000, 2});
  PermuteMap map = {
      .experts = experts, .begin = begin, .count = count, .row_of_slot = row_of_slot, .limit = {.most = 300}};
  const auto expect_rows = [&](const std::vector<int64_t>& each) {
    EXPECT_EQ(permute_map(ctx, map), std::accumulate(each.begin(), each.end(), int64_t{0}));
    for (int64_t e = 0, rows = 0; e < 8; rows += each[e], ++e) {
      EXPECT_EQ(begin[e], rows);
      EXPECT_EQ(count[e], each[e]);
    }
  };
  expect_rows({384, 384, 384, 384, 384, 128, 0, 0});
  ctx.routing_share = kWorstRouting;
  expect_rows({384, 384, 384, 384, 384, 384, 384, 256});
  map.limit.most = 128;
  expect_rows(std::vector<int64_t>(8, 128));
  map.limit = {.most = 300, .padded = true};
  expect_rows(std::vector<int64_t>(8, 384));
}

TEST(Permute, PaddedExpertsHaveAsManyRows) {
  Permutation p;
  Buffer<int32_t> begin({kExperts}), count({kExperts}), row_of_slot({kTokens, kSlots});
  const int64_t rows = permute_map(p.ctx, {.experts = p.experts,
                                           .begin = begin,
                                           .count = count,
                                           .row_of_slot = row_of_slot,
                                           .limit = {.most = kTokens, .padded = true}});
  ASSERT_EQ(rows, kExperts * align_rows(kTokens));
  Buffer<int32_t> slot_of_row({rows});
  permute_invert(p.ctx, row_of_slot, slot_of_row);
  for (int64_t e = 0; e < kExperts; ++e) {
    EXPECT_EQ(begin[e], e * align_rows(kTokens));
    EXPECT_EQ(count[e], kTokens);
    for (int64_t i = 0; i < align_rows(kTokens); ++i)
      EXPECT_EQ(slot_of_row[begin[e] + i], i < p.count[e] ? p.slot_of_row[p.begin[e] + i] : -1);
  }
}

}  // namespace
}  // namespace mixtune
