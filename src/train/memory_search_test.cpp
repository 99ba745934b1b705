#include "train/memory_search.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "config/load.h"
#include "train/instance_options.h"
#include "train/memory_plan.h"
#include "train/memory_savings.h"
#include "train/testing.h"

namespace mixtune {
namespace {

constexpr size_t kGiB = size_t{1} << 30;

MixtralConfig mixtral_8x7b() {
  return {.vocab_size = 32000,
          .hidden_size = 4096,
          .intermediate_size = 14336,
          .num_hidden_layers = 32,
          .num_attention_heads = 32,
          .num_key_value_heads = 8,
          .head_dim = 128,
          .num_local_experts = 8,
          .num_experts_per_tok = 2,
          .max_position_embeddings = 32768,
          .rope_theta = 1e6,
          .rms_norm_eps = 1e-5,
          .initializer_range = 0.02};
}

Config config_with(const Overrides& overrides) {
  return load_config(std::nullopt, overrides);
}

Config changed(Config config, const std::vector<Change>& changes) {
  for (const Change& change : changes) config = with(std::move(config), change.key, change.value);
  return config;
}

size_t need(const MixtralConfig& shape, const Config& config, int ranks) {
  const Ranks planned =
      planned_ranks({.world = ranks, .expert_parallel = static_cast<int>(config.parallel.expert_model_parallel_size)});
  const int64_t rows = config.batch.per_device_train_batch_size, length = config.data.max_seq_length;
  return plan_memory(shape, planned_options(config, planned), {rows * length, length, rows}, kWorstRouting).least();
}

std::string str(const Fit& fit) {
  std::string text = std::to_string(fit.ranks);
  for (const Change& change : fit.changes) text += " " + change.key + "=" + change.value;
  return text;
}

// Checks what holds for every search: a layout fits by the planner and needs all its changes; the order is as promised.
void check(const MixtralConfig& shape, const Config& config, const std::vector<Fit>& fits, size_t memory) {
  for (const Fit& fit : fits) {
    SCOPED_TRACE(str(fit));
    const Config other = changed(config, fit.changes);
    EXPECT_EQ(need(shape, other, fit.ranks), fit.bytes);
    EXPECT_LE(fit.bytes, memory);
  }
  EXPECT_TRUE(std::ranges::is_sorted(fits, {}, &Fit::changes_numbers));
}

// A small model whose state dwarfs what libraries and connections take.
class Search : public testing::Test {
 protected:
  Search() {
    shape_ = mixtral_8x7b();
    shape_.num_hidden_layers = 2;
    shape_.num_local_experts = 4;
  }
  std::vector<Fit> search(const Config& config, int ranks, size_t memory) const {
    auto fits = search_fits(shape_, config, ranks, memory);
    check(shape_, config, fits, memory);
    return fits;
  }
  MixtralConfig shape_;
};

TEST_F(Search, WhatFitsIsLeftAsItIs) {
  const auto fits = search(config_with({{"precision", "bf16"}}), 1, size_t{1000} * kGiB);
  ASSERT_EQ(fits.size(), 1u);
  EXPECT_EQ(str(fits[0]), "1");
}

TEST_F(Search, NothingFitsWhereNoSettingHelps) {
  EXPECT_TRUE(search(config_with({{"precision", "bf16"}}), 1, kGiB).empty());
}

TEST_F(Search, RecomputationBeforeSmallerBatchesBeforeOtherNumbers) {
  const Config config = config_with({{"precision", "bf16"}, {"max_seq_length", "8192"}});
  const size_t given = need(shape_, config, 1);
  const Config full = with(config, "recompute", "full");
  auto fits = search(config, 1, given - 1);
  ASSERT_FALSE(fits.empty());
  EXPECT_EQ(str(fits[0]), "1 recompute=full");

  fits = search(config, 1, need(shape_, full, 1) - 1);
  ASSERT_FALSE(fits.empty());
  EXPECT_FALSE(fits[0].changes_numbers());
  EXPECT_NE(str(fits[0]).find("per_device_train_batch_size=4 gradient_accumulation_steps=2"), std::string::npos)
      << str(fits[0]);

  const Config least = with(with(full, "per_device_train_batch_size", "1"), "gradient_accumulation_steps", "8");
  fits = search(config, 1, need(shape_, least, 1) - 1);
  ASSERT_GE(fits.size(), 2u);
  EXPECT_FALSE(fits[0].changes_numbers());
  EXPECT_EQ(fits[0].ranks, 2);
  EXPECT_EQ(fits[1].ranks, 1);
  EXPECT_TRUE(fits[1].changes_numbers());
  EXPECT_NE(str(fits[1]).find("optimizer_state_dtype=bf16"), std::string::npos) << str(fits[1]);
  EXPECT_EQ(str(fits[1]).find("recompute"), std::string::npos) << str(fits[1]);  // no longer needed
}

// 8 rows on 4 GPUs are 2 rows each; 6 rows cannot be shared by 4 GPUs.
TEST_F(Search, TheGlobalBatchStays) {
  const Config config = config_with({{"precision", "bf16"}});
  const auto as_given = search(config, 4, need(shape_, config, 4));
  ASSERT_FALSE(as_given.empty());
  EXPECT_EQ(str(as_given[0]), "4");
  const size_t half = need(shape_, with(config, "per_device_train_batch_size", "1"), 1) * 2 / 3;
  const auto fits = search(config, 1, half);
  ASSERT_FALSE(fits.empty());
  EXPECT_FALSE(fits[0].changes_numbers());
  const Config other = changed(config, fits[0].changes);
  EXPECT_EQ(other.batch.per_device_train_batch_size * other.batch.gradient_accumulation_steps * fits[0].ranks, 8);
  const auto by_global = search(config_with({{"precision", "bf16"}, {"global_batch_size", "8"}}), 1, half);
  ASSERT_FALSE(by_global.empty());
  EXPECT_EQ(str(by_global[0]).find("gradient_accumulation_steps"), std::string::npos) << str(by_global[0]);
}

// On fewer ranks the global batch takes several micro-batches, whose gradients must be fp32.
TEST_F(Search, Bf16GradientsGoWhereTheBatchIsShared) {
  const Config config = config_with({{"precision", "bf16"}, {"gradient_dtype", "bf16"}});
  EXPECT_TRUE(search(config, 8, kGiB).empty());
  const size_t given = need(shape_, config, 8);
  auto fits = search(config, 8, given);
  ASSERT_FALSE(fits.empty());
  EXPECT_EQ(str(fits[0]), "8");
  fits = search(config, 8, 4 * given);
  const auto fewer = std::ranges::find_if(fits, [](const Fit& fit) { return fit.ranks < 8; });
  ASSERT_NE(fewer, fits.end());
  EXPECT_NE(str(*fewer).find("gradient_accumulation_steps="), std::string::npos) << str(*fewer);
  EXPECT_NE(str(*fewer).find("gradient_dtype=fp32"), std::string::npos) << str(*fewer);
  EXPECT_TRUE(fewer->changes_numbers());
}

// 64 rows in a step.
TEST(SearchOfMixtral8x7B, FindsLayoutsThatFitByFewPlans) {
  const MixtralConfig shape = mixtral_8x7b();
  const Config config =
      config_with({{"precision", "bf16"}, {"max_seq_length", "4096"}, {"gradient_accumulation_steps", "8"}});
  for (const size_t memory : {79 * kGiB, 140 * kGiB}) {
    size_t plans = 0;
    const auto fits = search_fits(shape, config, 1, memory, &plans);
    EXPECT_LT(plans, 200u);  // 80
    ASSERT_GE(fits.size(), 2u);
    check(shape, config, fits, memory);
    EXPECT_FALSE(fits.front().changes_numbers()) << str(fits.front());
    EXPECT_TRUE(fits.back().changes_numbers()) << str(fits.back());
    EXPECT_LT(fits.back().ranks, fits.front().ranks);
    EXPECT_LE(fits.front().ranks, memory == 79 * kGiB ? 32 : 8);
    for (const Fit& fit : fits) EXPECT_EQ(fit.other_batch, 0) << str(fit);
  }
}

// More GPUs than rows.
TEST(SearchOfMixtral8x7B, AnotherGlobalBatchIsSaid) {
  const Config config = config_with({{"precision", "bf16"}, {"max_seq_length", "4096"}, {"global_batch_size", "8"}});
  const auto fits = search_fits(mixtral_8x7b(), config, 1, 79 * kGiB);
  ASSERT_FALSE(fits.empty());
  EXPECT_TRUE(fits.front().changes_numbers());
  EXPECT_GE(fits.front().ranks, 16);
  EXPECT_EQ(fits.front().other_batch, fits.front().ranks);
  EXPECT_NE(str(fits.front()).find("global_batch_size=" + std::to_string(fits.front().ranks)), std::string::npos)
      << str(fits.front());
  EXPECT_EQ(fits.back().other_batch, 0);
}

}  // namespace
}  // namespace mixtune
