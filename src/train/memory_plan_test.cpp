#include "train/memory_plan.h"

#include <gtest/gtest.h>
#include <omp.h>

#include "train/testing.h"

namespace mixtune {
namespace {

InstanceOptions bf16_options() {
  InstanceOptions options;
  options.types = {.weights = DType::kBF16, .gradients = DType::kF32, .moments = DType::kBF16, .masters = true};
  return options;
}

constexpr BatchLimits kLimits = {.tokens = 4096, .longest_document = 512, .documents = 8};

size_t part(const MemoryPlan& plan, std::string_view name) {
  for (const MemoryPlan::Part& part : plan.state)
    if (part.name == name) return part.bytes;
  return 0;
}

TEST(MemoryPlan, CountsEachPartOfTheStateInItsDtype) {
  const MemoryPlan plan = plan_memory(testing_config(), bf16_options(), kLimits, kEvenRouting);
  const size_t slack = 64 * kAlignment;
  const size_t weights = part(plan, "weights");
  EXPECT_GT(weights, 0u);
  EXPECT_NEAR(part(plan, "master weights"), 2 * weights, slack);
  EXPECT_NEAR(part(plan, "gradients"), 2 * weights, slack);
  EXPECT_NEAR(part(plan, "first moments"), weights, slack);
  EXPECT_NEAR(part(plan, "second moments"), weights, slack);
  EXPECT_GT(plan.total(), plan.activations + 7 * weights - 4 * slack);
}

TEST(MemoryPlan, RecomputeTakesLessAndLongerBatchesMore) {
  InstanceOptions options = bf16_options();
  const MixtralConfig config = testing_config();
  const auto activations = [&](Recompute recompute, int64_t tokens) {
    options.recompute = recompute;
    return plan_memory(config, options, {tokens, 512, 8}, kEvenRouting).activations;
  };
  EXPECT_LT(activations(Recompute::kSelective, 4096), activations(Recompute::kNone, 4096));
  EXPECT_LT(activations(Recompute::kFull, 4096), activations(Recompute::kSelective, 4096));
  EXPECT_LT(activations(Recompute::kNone, 4096), activations(Recompute::kNone, 8192));
}

TEST(MemoryPlan, WeightsOfTargetsAreCounted) {
  BatchLimits limits = kLimits;
  const auto activations = [&] {
    return plan_memory(testing_config(), bf16_options(), limits, kEvenRouting).activations;
  };
  const size_t plain = activations();
  limits.weighted = true;
  const int64_t targets = limits.tokens - limits.tokens / limits.longest_document;
  EXPECT_EQ(activations() - plain, align_up(static_cast<size_t>(targets) * sizeof(float)));
}

TEST(MemoryPlan, RanksShareExpertsAndTheOptimizersState) {
  const MixtralConfig config = testing_config();
  const auto plan = [&](const RankGrid& grid, int zero_stage, double share) {
    const Ranks ranks = planned_ranks(grid);
    InstanceOptions options = bf16_options();
    options.ranks = &ranks;
    options.zero_stage = zero_stage;
    return plan_memory(config, options, kLimits, share);
  };
  const ModelLayout layout = make_layout(config);
  size_t all = 0, experts = 0;  // elements
  for (const ParamSpec& spec : layout.specs)
    (spec.name.find("experts.") != spec.name.npos ? experts : all) += spec.shape.elements();
  all += experts;
  const double slack = 256 * kAlignment;
  const MemoryPlan spread = plan({.world = 4, .expert_parallel = 2}, 1, kEvenRouting),
                   whole = plan({.world = 4, .expert_parallel = 2}, 0, kEvenRouting);
  EXPECT_NEAR(part(spread, "weights"), 2.0 * (all - experts / 2), slack);
  EXPECT_NEAR(part(spread, "gradients"), 4.0 * (all - experts / 2), slack);
  EXPECT_NEAR(part(spread, "master weights"), 4.0 * ((all - experts) / 4 + experts / 4), slack);
  EXPECT_NEAR(part(whole, "master weights"), 4.0 * (all - experts / 2), slack);
  EXPECT_EQ(spread.connections, kNcclBytes);
  EXPECT_EQ(plan({}, 1, kEvenRouting).connections, 0u);
  // At worst all tokens of two ranks go to one, half of whose rows have a gap at most.
  const MemoryPlan alone = plan({}, 1, kWorstRouting),
                   both = plan({.world = 2, .expert_parallel = 2}, 1, kWorstRouting);
  EXPECT_GT(both.activations,
            alone.activations + kLimits.tokens * config.num_experts_per_tok * 2 * config.intermediate_size);
}

TEST(MemoryPlan, TheWorstCaseIsNoSmallerAndLaterLayersNeedLess) {
  const MixtralConfig config = testing_config();
  const MemoryPlan balanced = plan_memory(config, bf16_options(), kLimits, kEvenRouting);
  const MemoryPlan worst = plan_memory(config, bf16_options(), kLimits, kWorstRouting);
  EXPECT_GE(worst.activations, balanced.activations);
  ASSERT_EQ(worst.still_needed.size(), 2u);
  EXPECT_GT(worst.still_needed[0], worst.still_needed[1]);
  EXPECT_LT(worst.still_needed[0], worst.activations);
  EXPECT_LT(worst.still_needed[0], worst.least_activations);
  EXPECT_LT(worst.least_activations, worst.activations);
  EXPECT_LT(balanced.least(), balanced.total());
}

// Where memory is short a layer gives up its gate-up output and, with experts on other ranks, the rows that came.
TEST(MemoryPlan, ALayerThatKeepsNothingOfItsExpertsNeedsNoMemoryForTheirRows) {
  MixtralConfig config = testing_config();
  const Ranks ranks = planned_ranks({.world = 4, .expert_parallel = 4});
  InstanceOptions options = bf16_options();
  options.ranks = &ranks;
  const auto of_a_layer = [&](double share) {
    config.num_hidden_layers = 2;
    const size_t two = plan_memory(config, options, kLimits, share).least_activations;
    config.num_hidden_layers = 6;
    return (plan_memory(config, options, kLimits, share).least_activations - two) / 4;
  };
  const auto most_rows = static_cast<size_t>(4 * kLimits.tokens);
  EXPECT_LT(of_a_layer(kWorstRouting), of_a_layer(kEvenRouting) + most_rows * config.hidden_size);
}

TEST(MemoryPlan, TheShareOfTokensThatFits) {
  const MixtralConfig config = testing_config();
  const Ranks ranks = planned_ranks({.world = 4, .expert_parallel = 4});
  InstanceOptions options = bf16_options();
  options.ranks = &ranks;
  const auto least = [&](double share) {
    return plan_memory(config, options, kLimits, share).least_activations;
  };
  const size_t even = least(kEvenRouting), worst = least(kWorstRouting);
  ASSERT_LT(even, worst);
  EXPECT_EQ(least(2), worst);  // one expert a rank: a token of four ranks comes once, of two times k rows on even terms
  EXPECT_EQ(share_that_fits(config, options, kLimits, worst), kWorstRouting);
  EXPECT_EQ(share_that_fits(config, options, kLimits, even - 1), 0);
  const double share = share_that_fits(config, options, kLimits, (even + worst) / 2);
  EXPECT_GT(share, 1.2);
  EXPECT_LT(share, 1.8);
  EXPECT_LE(least(share), (even + worst) / 2);
  EXPECT_GT(least(share + 0.05), (even + worst) / 2);
  EXPECT_EQ(describe_share(1.59), "routing sends a rank more than 1.5 times its even share of tokens");
}

// The worst routing sends a rank every token of all ranks; a capacity, no more than its experts take.
TEST(MemoryPlan, ACapacityBoundsTheWorstRouting) {
  const MixtralConfig config = testing_config();
  const Ranks ranks = planned_ranks({.world = 4, .expert_parallel = 4});
  InstanceOptions options = bf16_options();
  options.ranks = &ranks;
  const auto activations = [&](double share, const Capacity& capacity) {
    options.capacity = capacity;
    return plan_memory(config, options, kLimits, share).activations;
  };
  const size_t even = activations(kEvenRouting, {}), worst = activations(kWorstRouting, {});
  ASSERT_LT(even, worst);
  const size_t pairs = kLimits.tokens * config.num_experts_per_tok * sizeof(int32_t) * config.num_hidden_layers;
  EXPECT_LE(activations(kWorstRouting, {.factor = 1}), even + pairs + 8 * kAlignment);
  EXPECT_GT(activations(kWorstRouting, {.factor = 1.5}), even);
  EXPECT_LT(activations(kWorstRouting, {.factor = 1.5}), worst);
  EXPECT_EQ(activations(kWorstRouting, {.factor = 4}), worst);
  const Capacity padded = {.factor = 1.5, .padded_tokens = kLimits.tokens};
  EXPECT_EQ(activations(kEvenRouting, padded), activations(kWorstRouting, padded));
}

TEST(MemoryPlan, LeavesRoomForAShareBetweenAnEvenOneAndWhatFits) {
  EXPECT_EQ(reserved_share(kWorstRouting), kWorstRouting);
  EXPECT_DOUBLE_EQ(reserved_share(2.6), 1.8);
  EXPECT_EQ(reserved_share(kEvenRouting), kEvenRouting);
  EXPECT_EQ(reserved_share(0), kEvenRouting);

  const MixtralConfig config = testing_config();
  const Ranks ranks = planned_ranks({.world = 4, .expert_parallel = 4});
  InstanceOptions options = bf16_options();
  const MemoryPlan alone = plan_memory(config, options, kLimits, kWorstRouting);
  EXPECT_EQ(plan_reserve(config, options, kLimits, alone.least_activations / 2).still_needed, alone.still_needed);

  options.ranks = &ranks;
  const MemoryPlan even = plan_memory(config, options, kLimits, kEvenRouting),
                   worst = plan_memory(config, options, kLimits, kWorstRouting);
  EXPECT_EQ(plan_reserve(config, options, kLimits, worst.least_activations).still_needed, worst.still_needed);
  EXPECT_EQ(plan_reserve(config, options, kLimits, even.least_activations - 1).still_needed, even.still_needed);
  const size_t bytes = (even.least_activations + worst.least_activations) / 2;
  const Reserve reserve = plan_reserve(config, options, kLimits, bytes);
  ASSERT_EQ(reserve.still_needed.size(), 2u);
  EXPECT_GT(reserve.fits, kEvenRouting);
  EXPECT_LT(reserve.fits, kWorstRouting);
  for (size_t layer = 0; layer < reserve.still_needed.size(); ++layer) {
    EXPECT_GT(reserve.still_needed[layer], even.still_needed[layer]);
    EXPECT_LT(reserve.still_needed[layer], worst.still_needed[layer]);
  }
  const size_t mark = worst.least_activations - worst.still_needed[0];  // when the first has kept nothing yet
  EXPECT_LT(mark + reserve.still_needed[0], bytes) << "nothing is left for what layers keep";
}

// The plan of an fp32 GPU agrees with the CPU's stack, but for the ops' own temporaries.
TEST(MemoryPlan, CountsWhatARunTakes) {
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);  // each thread of the CPU has scratch that a GPU does not need
  const MixtralConfig config = testing_config();
  const TestData data(config.vocab_size, {128, 128, 128, 128});
  const Batch batch = data.batch();
  InstanceOptions plain, dropout;
  dropout.lora = {.rank = 3, .dropout = 0.1, .q = true, .k = true, .v = true, .out = true, .experts = true};
  for (const InstanceOptions& options : {plain, dropout}) {
    const MemoryPlan plan = plan_memory(config, options, {512, 128, 4}, kWorstRouting);
    TestModel model(config, options);
    Saved saved = model.model().make_saved();
    saved.noise = 3;
    run_micro_batch(model.ctx(), model.model(), batch, saved, {.router = {RouterLossType::kHuggingface, 1}});
    EXPECT_NEAR(static_cast<double>(model.ctx().stack.peak()), static_cast<double>(plan.activations),
                0.15 * static_cast<double>(plan.activations));
  }
  omp_set_num_threads(threads);
}

// The rows' numbers in every layer; and what is left of the experts' input.
TEST(MemoryPlan, CountsWhatDropoutTakes) {
  const MixtralConfig config = testing_config();
  InstanceOptions options = bf16_options();
  options.lora = {.rank = 8, .experts = true};
  const size_t without = plan_memory(config, options, kLimits, kEvenRouting).activations;
  options.lora.dropout = 0.1;
  const size_t numbers = config.num_hidden_layers * config.num_experts_per_tok * kLimits.tokens * sizeof(int64_t);
  EXPECT_GT(plan_memory(config, options, kLimits, kEvenRouting).activations, without + numbers);
}

}  // namespace
}  // namespace mixtune
