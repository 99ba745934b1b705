// The order of blends, against Megatron-Core's (scripts/make_indexed_fixtures.py).
#include "data/blend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/json_value.h"
#include "data/test_folder.h"

namespace mixtune {
namespace {

using testing::HasSubstr;

using Order = std::vector<std::array<int64_t, 2>>;

nlohmann::json blend_fixture(const std::string& kind) {
  return nlohmann::json::parse(TestFolder::read(source_path("tests/fixtures/indexed/blends.json"))).at(kind);
}

Order first(Blend blend, size_t count) {
  Order order;
  for (size_t i = 0; i < count; ++i) {
    const BlendSample sample = blend.next();
    order.push_back({sample.data_set, sample.sample});
  }
  return order;
}

TEST(Blend, OfWeightsIsInMegatronsOrder) {
  const nlohmann::json cases = blend_fixture("weights");
  ASSERT_GE(cases.size(), 10u);
  for (const auto& blend : cases) {
    const auto weights = blend.at("weights").get<std::vector<double>>();
    const auto order = blend.at("order").get<Order>();
    EXPECT_EQ(first(Blend::of_weights(weights, ""), order.size()), order) << blend.at("weights");
    EXPECT_EQ(blend_sizes(weights, static_cast<int64_t>(order.size())), blend.at("built").get<std::vector<int64_t>>());
  }
}

TEST(Blend, OfSizesIsInMegatronsOrder) {
  const nlohmann::json cases = blend_fixture("sizes");
  ASSERT_GE(cases.size(), 5u);
  for (const auto& blend : cases) {
    const auto order = blend.at("order").get<Order>();
    Blend exhaustive = Blend::of_sizes(blend.at("sizes").get<std::vector<int64_t>>());
    EXPECT_EQ(first(exhaustive, order.size()), order) << blend.at("sizes");
    for (size_t i = 0; i < order.size(); ++i) exhaustive.next();
    EXPECT_TRUE(exhaustive.ended());
  }
}

TEST(Blend, OfNothingHasEnded) {
  EXPECT_TRUE(Blend::of_sizes({}).ended());
  EXPECT_TRUE(Blend::of_sizes(std::vector<int64_t>{0, 0}).ended());
  EXPECT_EQ(first(Blend::of_sizes(std::vector<int64_t>{0, 2}), 2), (Order{{1, 0}, {1, 1}}));
}

TEST(Blend, KeepsToTheWeights) {
  const std::vector<double> weights = {0.6, 0.25, 0.1, 0.05};
  Blend blend = Blend::of_weights(weights, "");
  std::vector<int64_t> taken(weights.size());
  for (int64_t i = 1; i <= 100000; ++i) {
    ++taken[blend.next().data_set];
    for (size_t d = 0; d < weights.size(); ++d)
      ASSERT_LT(std::abs(static_cast<double>(taken[d]) - weights[d] * static_cast<double>(i)), 2) << i;
  }
}

TEST(Blend, RefusesWeightsThatAreNone) {
  for (const double weight : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity(), 1e101})
    EXPECT_THAT(user_error([&] {
                  Blend::of_weights(std::vector<double>{1, weight}, "datasets[1]");
                }),
                HasSubstr("datasets[1]: a weight is"));
}

}  // namespace
}  // namespace mixtune
