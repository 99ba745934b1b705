#include "train/memory_savings.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "config/load.h"
#include "train/instance_options.h"

namespace mixtune {
namespace {

Config bf16_config(const Overrides& more = {}) {
  Overrides overrides = {{"precision", "bf16"}};
  overrides.insert(overrides.end(), more.begin(), more.end());
  return load_config(std::nullopt, overrides);
}

const Overrides kFrugal = {{"recompute", "full"},      {"per_device_train_batch_size", "1"},
                           {"gradient_dtype", "bf16"}, {"optimizer_state_dtype", "bf16"},
                           {"master_weights", "none"}, {"gradient_accumulation_steps", "1"}};

std::vector<std::string_view> keys_of(const std::vector<Saving>& list) {
  std::vector<std::string_view> keys;
  for (const Saving& saving : list) keys.push_back(saving.key);
  return keys;
}

TEST(Savings, WhatChangesNumbersComesLast) {
  const auto list = savings(bf16_config({{"zero_stage", "0"}}), 2);
  EXPECT_EQ(keys_of(list),
            (std::vector<std::string_view>{"zero_stage", "recompute", "per_device_train_batch_size",
                                           "optimizer_state_dtype", "gradient_dtype", "master_weights"}));
  EXPECT_TRUE(std::ranges::is_sorted(list, {}, &Saving::changes_numbers));
}

TEST(Savings, NothingThatIsSetAlready) {
  EXPECT_TRUE(savings(bf16_config(kFrugal), 2).empty());
  EXPECT_EQ(
      keys_of(savings(load_config(std::nullopt, {{"recompute", "full"}, {"per_device_train_batch_size", "1"}}), 1)),
      (std::vector<std::string_view>{"precision"}));
}

TEST(Savings, EachIsAConfigurationThatRuns) {
  for (const Overrides& given :
       {Overrides(), Overrides{{"precision", "bf16"}},
        Overrides{{"precision", "bf16"}, {"gradient_accumulation_steps", "2"}},
        Overrides{{"precision", "bf16"}, {"gradient_dtype", "bf16"}}, Overrides{{"precision", "fp8"}},
        Overrides{{"precision", "mxfp8"}}, Overrides{{"precision", "fp8"}, {"fp8_scaling", "tensor"}}}) {
    const Config config = load_config(std::nullopt, given);
    for (const Saving& saving : savings(config, 2)) {
      const Config other = with(config, saving.key, saving.value);
      EXPECT_NO_THROW(planned_options(other)) << saving.key;
      EXPECT_NE(print_config(other), print_config(config)) << saving.key;
    }
  }
}

// The weights' copies in 8 bits go with the precision.
TEST(MemoryAdvice, OfCodesNamesThePrecision) {
  Overrides overrides = {{"precision", "fp8"}};
  overrides.insert(overrides.end(), kFrugal.begin(), kFrugal.end());
  EXPECT_NE(memory_advice(load_config(std::nullopt, overrides), 1, true, MemoryOf::kState).find("precision: bf16"),
            std::string::npos);
}

TEST(MemoryAdvice, NamesWhatIsNotSetYet) {
  const std::string first = memory_advice(bf16_config(), 1, true, MemoryOf::kActivations);
  EXPECT_EQ(
      first,
      "set recompute: full or per_device_train_batch_size: 4 (and raise gradient_accumulation_steps) or a shorter "
      "max_seq_length, or use more GPUs (expert_model_parallel_size): 'mixtune estimate' finds what fits");
  const std::string later = memory_advice(bf16_config({{"recompute", "full"}}), 1, true, MemoryOf::kActivations);
  EXPECT_EQ(later.find("recompute"), std::string::npos) << later;
  EXPECT_NE(later.find("per_device_train_batch_size: 4"), std::string::npos) << later;
  EXPECT_NE(memory_advice(bf16_config(), 2, true, MemoryOf::kState).find("optimizer_state_dtype: bf16"),
            std::string::npos);
}

TEST(MemoryAdvice, NamesNothingWhereAllIsSet) {
  for (const MemoryOf part : {MemoryOf::kState, MemoryOf::kActivations}) {
    const std::string advice = memory_advice(bf16_config(kFrugal), 2, true, part);
    for (const auto& [key, value] : kFrugal) EXPECT_EQ(advice.find(key + ":"), std::string::npos) << advice;
    EXPECT_NE(advice.find("use more GPUs"), std::string::npos) << advice;
    EXPECT_NE(advice.find("'mixtune estimate'"), std::string::npos) << advice;
  }
}

// bf16 needs a GPU.
TEST(MemoryAdvice, OfTheCpu) {
  EXPECT_EQ(memory_advice(Config(), 1, false, MemoryOf::kState), "use a machine with more memory");
  const std::string advice = memory_advice(Config(), 1, false, MemoryOf::kActivations);
  EXPECT_NE(advice.find("recompute: full"), std::string::npos) << advice;
  EXPECT_EQ(advice.find("bf16"), std::string::npos) << advice;
}

}  // namespace
}  // namespace mixtune
