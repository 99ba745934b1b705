// The invariance matrix: the same global batch gives the same loss, gradient norm, gradients and update on every number
// of ranks, every spread of experts and both ZeRO stages, as in one process that accumulates the same documents
// (docs/design.md, section 4). Ranks are processes that talk over TCP.
#include <numeric>

#include "rank_processes.h"

namespace mixtune {
namespace {

// Trains on 19 documents of 2 to 60 tokens, about half of them without a target; in the last of three accumulation
// steps some ranks have no row.
class Matrix : public testing::TestWithParam<DType> {
 protected:
  ShortTraining run_ = {.config = config_with_experts(8, 2),
                        .layout = {false, 8, 3},
                        .router = {RouterLossType::kHuggingface, 0.02},
                        .documents = 19};
  InstanceOptions options_ = {.types = StateTypes::all(GetParam())};
};

TEST_P(Matrix, EveryLayoutGivesTheSameUpdate) {
  compare_all(run_, options_, {1, 2, 4, 8});
}

TEST_P(Matrix, OfWeightedTargetsToo) {
  run_.weights = ShortTraining::Weights::kUneven;
  compare_all(run_, options_, {2});
}

// All losses at once: those of a rank's own tokens, and those of all ranks' counts.
TEST_P(Matrix, OfEveryRouterLossToo) {
  run_.router[RouterLossType::kSwitch] = 0.01;
  run_.router[RouterLossType::kGlobal] = 0.02;
  run_.router[RouterLossType::kSequence] = 0.03;
  run_.router[RouterLossType::kZ] = 0.01;
  compare_all(run_, options_, {1, 2, 4});
}

// Whose losses are of other probabilities.
TEST_P(Matrix, OfSigmoidScoresToo) {
  run_.config.router_scores = {.scoring = Scoring::kSigmoid, .scaling = 2.5};
  run_.router[RouterLossType::kSequence] = 0.03;
  compare_all(run_, options_, {2});
}

// Which is moved by all ranks' tokens, far enough for other choices from the second step on.
TEST_P(Matrix, OfAnExpertBiasToo) {
  run_.config.router_scores = {.scoring = Scoring::kSigmoid, .expert_bias = true};
  run_.config.expert_bias.resize(run_.config.num_hidden_layers * run_.config.num_local_experts);
  run_.router[RouterLossType::kSequence] = 0.03;
  const TrainingRecord unmoved = run_alone(run_, options_);
  run_.bias_rate = 0.05;
  EXPECT_NE(run_alone(run_, options_).losses.back(), unmoved.losses.back());
  compare_all(run_, options_, {1, 2, 4});
}

// By tokens' places in the global batch, whichever rank and accumulation step has them, and whatever is recomputed.
TEST_P(Matrix, OfWhatRoutersDrawToo) {
  for (const RouterNoise& noise : {RouterNoise{.jitter = 0.1}, RouterNoise{.draws_experts = true}}) {
    options_.router_noise = noise;
    options_.recompute = Recompute::kNone;
    compare_all(run_, options_, {1, 2});
    const TrainingRecord reference = run_alone(run_, options_);
    options_.recompute = Recompute::kFull;
    compare(run_, options_, reference, {2, 2, 1});
    options_.router_noise = {};
    EXPECT_NE(run_alone(run_, options_).losses[0], reference.losses[0]);
  }
}

// Rows of experts carry their numbers to the rank that has them.
TEST_P(Matrix, OfWhatAdaptersDropOutToo) {
  options_.lora = {.rank = 8, .scale = 1.75, .q = true, .k = true, .v = true, .out = true, .experts = true};
  const TrainingRecord all_left = run_alone(run_, options_);
  options_.lora.dropout = 0.1;
  compare_all(run_, options_, {1, 2, 4});
  const TrainingRecord reference = run_alone(run_, options_);
  EXPECT_NE(reference.losses[0], all_left.losses[0]);
  for (const Recompute recompute : {Recompute::kSelective, Recompute::kFull}) {
    options_.recompute = recompute;
    compare(run_, options_, reference, {2, 2, 1});
  }
}

TEST_P(Matrix, RecomputationToo) {
  const TrainingRecord reference = run_alone(run_, options_);
  print_heading();
  for (const Recompute recompute : {Recompute::kSelective, Recompute::kFull}) {
    options_.recompute = recompute;
    compare(run_, options_, reference, {4, 2, 1});
  }
}

TEST_P(Matrix, TheSameRanksGiveTheSameBits) {
  expect_same_bits(run_, options_, {4, 2, 1});
}

// All tokens go to rank 0's experts, and it has no memory for what they leave behind.
TEST_P(Matrix, ARankThatGetsAllTokensRecomputes) {
  run_.first_experts = true;
  for (const bool drops_out : {false, true}) {  // by numbers that are sent again too
    if (drops_out) options_.lora = {.rank = 3, .dropout = 0.1, .q = true, .experts = true};
    run_.little_memory = false;
    const TrainingRecord reference = run_alone(run_, options_);
    print_heading();
    run_.little_memory = true;
    compare(run_, options_, reference, {4, 4, 1});
  }
}

double exchanged_bytes(const TrainingRecord& record) {
  return std::accumulate(record.exchanged.begin(), record.exchanged.end(), 0.0);
}

// Where memory is short, layers give up the rows that other ranks sent too, and all ranks that share experts send them
// again in backward: one of five times that rows travel in a layer.
TEST_P(Matrix, RowsThatDoNotFitAreSentAgain) {
  run_.config.num_hidden_layers = 6;
  for (const Grid& grid : {Grid{2, 2, 1}, Grid{4, 2, 1}}) {
    SCOPED_TRACE(grid.ranks);
    options_.recompute = grid.ranks == 2 ? Recompute::kNone : Recompute::kSelective;
    run_.little_memory = false;
    const TrainingRecord kept = run_ranks(run_, options_, grid);
    run_.little_memory = true;
    run_.memory = grid.ranks == 2 ? 0.9 : 0.95;
    const TrainingRecord sent_again = run_ranks(run_, options_, grid);
    expect_same_bits(kept, sent_again);
    const double times = exchanged_bytes(sent_again) / exchanged_bytes(kept);
    fmt::print("{} ranks exchange {:.3f} times what they do with enough memory\n", grid.ranks, times);
    EXPECT_GT(times, 1.03);
    EXPECT_LT(times, 1.3);
  }
}

// Memory that is just enough for the worst routing is left for it, and most rows are sent again; a little less is not
// left for it, and more rows are kept.
TEST_P(Matrix, RowsAreKeptWhereOnlyUnevenRoutingDoesNotFit) {
  run_.config.num_hidden_layers = 6;
  run_.little_memory = true;
  run_.memory = 1;
  const TrainingRecord all_fits = run_ranks(run_, options_, {2, 2, 1});
  run_.memory = 0.96;
  const TrainingRecord even_fits = run_ranks(run_, options_, {2, 2, 1});
  expect_same_bits(all_fits, even_fits);
  EXPECT_LT(exchanged_bytes(even_fits), 0.98 * exchanged_bytes(all_fits));
}

INSTANTIATE_TEST_SUITE_P(Dtypes, Matrix, testing::Values(DType::kF32, DType::kF64),
                         [](const auto& of) { return std::string(dtype_name(of.param)); });

// In 8 bits forward and the gradients of inputs scale each token by itself: the first loss is the same on any layout.
// A weight's gradient shares scales over tokens, and which those are depends on the layout. Scales that are powers of
// two round a value alike, whatever shares them, but for the smallest, which lose up to 2^-18 of the block's largest;
// others by up to half a step of either operand each way, 3.7% of a product of Gaussian operands, so 5.2% from one
// layout to another. In fp64, where no rounding falls the other way for a last bit.
TEST(EightBits, LayoutsDifferInWeightGradientsAlone) {
  const ShortTraining run = {.config = config_with_experts(8, 2),
                             .layout = {false, 8, 3},
                             .router = {RouterLossType::kHuggingface, 0.02},
                             .documents = 19};
  for (const EightBitScaling scaling : {EightBitScaling::kBlock, EightBitScaling::kMx})
    for (const bool power_of_two : {true, false}) {
      if (scaling == EightBitScaling::kMx && !power_of_two) continue;
      const InstanceOptions options = {.types = StateTypes::all(DType::kF64),
                                       .recipe = {.eight_bit = scaling, .power_of_two_scales = power_of_two}};
      const TrainingRecord alone = run_alone(run, options);
      for (const Grid& grid : {Grid{2, 1, 1}, Grid{2, 2, 0}, Grid{4, 2, 1}, Grid{8, 8, 1}}) {
        SCOPED_TRACE(fmt::format("{} ranks, ep {}, {}", grid.ranks, grid.expert_parallel, power_of_two));
        const TrainingRecord ranks = run_ranks(run, options, grid);
        EXPECT_NEAR(ranks.losses[0] / alone.losses[0], 1, 1e-12);
        const double off = expect_near("gradient", ranks.gradients, alone.gradients, power_of_two ? 1e-4 : 0.052);
        const double loss = std::abs(ranks.losses.back() / alone.losses.back() - 1);
        EXPECT_LT(loss, power_of_two ? 1e-9 : 1e-2);
        fmt::print("{} ranks, ep {}, scales {}: gradients {:.1e}, last loss {:.1e}\n", grid.ranks, grid.expert_parallel,
                   power_of_two ? "2^e" : "fp32", off, loss);
      }
    }
}

// Where gate-up outputs are kept, the rows that other ranks sent are kept in codes; otherwise as they are, or not at
// all.
TEST(EightBits, RowsKeptAsCodesGiveTheSameBits) {
  ShortTraining run = {.config = config_with_experts(4, 2), .layout = {false, 8, 1}, .documents = 8};
  run.config.hidden_size = run.config.intermediate_size = 128;
  InstanceOptions options = {.types = StateTypes::all(DType::kF64),
                             .recipe = {.eight_bit = EightBitScaling::kBlock, .multiplies_codes = true}};
  const Grid grid = {2, 2, 0};
  const TrainingRecord codes = run_ranks(run, options, grid);
  options.recompute = Recompute::kSelective;
  expect_same_bits(codes, run_ranks(run, options, grid));
  options.recompute = Recompute::kFull;
  expect_same_bits(codes, run_ranks(run, options, grid));
}

InstanceOptions fp32_options() {
  return {.types = StateTypes::all(DType::kF32)};
}

TEST(RoutingExtremes, AllTokensToOneExpert) {
  compare_all({.config = config_with_experts(8, 1), .layout = {false, 8, 2}, .documents = 13, .first_experts = true},
              fp32_options(), {2, 8});
}

TEST(RoutingExtremes, AllTokensToTheFirstExperts) {
  compare_all({.config = config_with_experts(4, 2), .layout = {false, 8, 1}, .documents = 8, .first_experts = true},
              fp32_options(), {4});
}

TEST(RoutingExtremes, AsManyExpertsAsRanks) {
  compare_all({.config = config_with_experts(4, 1), .layout = {false, 8, 1}, .documents = 8}, fp32_options(), {4});
}

TEST(RoutingExtremes, RanksWithoutATokenAndBatchesOfOneTarget) {
  compare_all({.config = config_with_experts(8, 2), .layout = {false, 8, 1}, .documents = 3, .longest = 2},
              fp32_options(), {8});
}

}  // namespace
}  // namespace mixtune
