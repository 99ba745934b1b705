#include "kernels/moe/capacity.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <ranges>
#include <tuple>

#include "kernels/testing.h"

namespace mixtune {
namespace {

// Tokens of which most choose the first experts; the last three are routed nowhere. Weights have many equals.
template <class S>
struct Drops {
  int64_t tokens, experts, k;
  TestCtx ctx;
  Buffer<int32_t> chosen{{tokens, k}, -1}, sent{{tokens, k}, 9};
  Buffer<S> weights{{tokens, k}};
  Buffer<double> dropped{{2}};

  Drops(int64_t tokens_, int64_t experts_, int64_t k_, int64_t levels) : tokens(tokens_), experts(experts_), k(k_) {
    const uint64_t key = random_key(11, "routing");
    for (int64_t t = 0; t < tokens - 3; ++t) {
      std::vector<int32_t> order(experts);
      std::iota(order.begin(), order.end(), 0);
      for (int64_t slot = 0; slot < k; ++slot) {
        const auto left = static_cast<uint64_t>(experts - slot);
        const auto pick = static_cast<int64_t>(
            std::min(random_below(key, 3 * (t * k + slot), left), random_below(key, 3 * (t * k + slot) + 1, left)));
        std::swap(order[slot], order[slot + pick]);
        chosen[t * k + slot] = order[slot];
        weights[t * k + slot] =
            static_cast<S>(random_below(key, 3 * (t * k + slot) + 2, levels)) / static_cast<S>(levels);
      }
    }
  }

  void run(int64_t most, TokenDropPolicy policy) {
    drop_pairs(ctx, {.experts = chosen,
                     .weights = weights,
                     .all_experts = experts,
                     .most = most,
                     .policy = policy,
                     .sent = sent,
                     .dropped = dropped});
  }

  // By definition: a pair is kept that fewer than `most` others of its expert go before.
  bool is_kept(int64_t pair, int64_t most, TokenDropPolicy policy) const {
    if (chosen[pair] < 0) return false;
    const auto order = [&](int64_t i) {
      return std::tuple(policy == TokenDropPolicy::kProbs ? -weights[i] : S(0), i / k);
    };
    int64_t before = 0;
    for (int64_t i = 0; i < tokens * k; ++i) before += chosen[i] == chosen[pair] && order(i) < order(pair);
    return before < most;
  }
};

template <class S>
class ExpertCapacity : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(ExpertCapacity, Scalars);

TYPED_TEST(ExpertCapacity, KeepsThePairsThatGoFirstAndCountsTheOthers) {
  for (const auto policy : {TokenDropPolicy::kProbs, TokenDropPolicy::kPosition})
    for (const auto& [experts, k] : {std::pair(4, 2), std::pair(7, 3), std::pair(3, 1), std::pair(2, 2)})
      for (const int64_t levels : {1, 5, 1 << 20})
        for (const int64_t most : {1, 2, 17, 40, 70, 71, 1000}) {
          SCOPED_TRACE(testing::Message() << experts << " experts, " << k << " each, most " << most << ", " << levels);
          Drops<TypeParam> drops(73, experts, k, levels);
          drops.run(most, policy);
          std::vector<int64_t> got(experts);
          int64_t lost_pairs = 0, lost_tokens = 0;
          for (int64_t t = 0; t < drops.tokens; ++t) {
            int64_t lost = 0;
            for (int64_t i = t * k; i < (t + 1) * k; ++i) {
              const bool kept = drops.is_kept(i, most, policy);
              ASSERT_EQ(drops.sent[i], kept ? drops.chosen[i] : -1) << "pair " << i;
              if (kept) ++got[drops.sent[i]];
              lost += drops.chosen[i] >= 0 && !kept;
            }
            lost_pairs += lost;
            lost_tokens += lost == k;
          }
          EXPECT_LE(std::ranges::max(got), most);
          EXPECT_EQ(drops.dropped[0], lost_pairs);
          EXPECT_EQ(drops.dropped[1], lost_tokens);
          drops.run(most, policy);
          EXPECT_EQ(drops.dropped[0], 2 * lost_pairs) << "it adds up";
        }
}

TYPED_TEST(ExpertCapacity, NeedNotCount) {
  Drops<TypeParam> drops(20, 4, 2, 9);
  drop_pairs(drops.ctx, {.experts = drops.chosen,
                         .weights = drops.weights,
                         .all_experts = 4,
                         .most = 20,
                         .sent = drops.sent,
                         .dropped = {}});
  for (int64_t i = 0; i < 40; ++i) EXPECT_EQ(drops.sent[i], drops.chosen[i]);
}

// What is not finite ends the step; until then it has its place.
TEST(ExpertCapacityOfFloats, NotANumberGoesFirst) {
  Drops<float> drops(40, 3, 1, 100);
  constexpr int64_t place = 30;
  drops.chosen[place] = 0;
  drops.weights[place] = std::numeric_limits<float>::quiet_NaN();
  drops.run(1, TokenDropPolicy::kProbs);
  EXPECT_EQ(drops.sent[place], 0);
  EXPECT_EQ(std::ranges::count_if(std::views::iota(0, 40), [&](int i) { return drops.sent[i] == 0; }), 1);
}

}  // namespace
}  // namespace mixtune
