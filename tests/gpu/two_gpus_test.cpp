// Two GPUs that talk through NCCL: the same numbers as one (docs/design.md, section 4), in fp32 by the criteria of
// sameness, in bf16 by the two runs of bf16_parity_test, each rank on its own documents, in 8 bits by what those cost.
#include <dlfcn.h>
#include <fmt/format.h>

#include <filesystem>

#include "config/load.h"
#include "gpu/training.h"
#include "job/supervisor.h"
#include "kernels/eight_bit/coded_gemm.h"
#include "rank_processes.h"
#include "tensor/gpu_test.h"
#include "train/instance_options.h"

namespace mixtune {
namespace {

// Asks, for a number up to 100, in another process: one that has looked for GPUs may not fork into processes that use
// them.
int asked_apart(int (*ask)()) {
  const pid_t child = fork();
  if (child == 0) _exit(std::min(ask(), 100));
  int status = 0;
  waitpid(child, &status, 0);
  return WEXITSTATUS(status);
}

// How many GPUs this process has a context on.
int contexts() {
  using State = int (*)(int device, unsigned* flags, int* active);
  const auto state = reinterpret_cast<State>(dlsym(dlopen("libcuda.so.1", RTLD_NOW), "cuDevicePrimaryCtxGetState"));
  int all = 0;
  for (int device = 0, active = 0; device < gpu_count(); ++device) {
    unsigned flags = 0;
    if (state(device, &flags, &active) != 0) return 100;
    all += active;
  }
  return all;
}

// What each rank and their supervisor ask before they start takes nothing of a GPU, on which another rank computes.
class ChecksOfKeys : public testing::Test {
 protected:
  void SetUp() override { need_gpus(1, asked_apart(gpu_count)); }
};

TEST_F(ChecksOfKeys, MakeNoContext) {
  EXPECT_EQ(asked_apart([] {
              gpu_info(0);
              return contexts();
            }),
            1);
  EXPECT_EQ(asked_apart([] {
              for (const char* precision : {"bf16", "fp8"})
                instance_options(parse_config(fmt::format("device: cuda\nprecision: {}\n", precision), "run.yaml"),
                                 State::Purpose::kTraining);
              return contexts();
            }),
            0);
}

// Of the first step's gradients, all tensors together, relative.
double gradients_apart(const TrainingRecord& a, const TrainingRecord& b) {
  double difference = 0, reference = 0;
  for (const auto& [name, values] : b.gradients) difference += distance(a.gradients.at(name), values, reference);
  return std::sqrt(difference / reference);
}

class TwoGpus : public testing::Test {
 protected:
  void SetUp() override { need_gpus(2, asked_apart(gpu_count)); }

  // The training is as in parallel_invariance_test.
  const ShortTraining run_ = {.config = config_with_experts(8, 2),
                              .layout = {false, 8, 3},
                              .router = {RouterLossType::kHuggingface, 0.02},
                              .documents = 19};
  InstanceOptions options_ = {.device = {DeviceType::kCuda}, .types = StateTypes::all(DType::kF32)};
};

TEST_F(TwoGpus, EveryLayoutGivesTheSameUpdate) {
  compare_all(run_, options_, {1, 2});
}

TEST_F(TwoGpus, RecomputationToo) {
  const TrainingRecord reference = run_alone(run_, options_);
  print_heading();
  for (const Recompute recompute : {Recompute::kSelective, Recompute::kFull}) {
    options_.recompute = recompute;
    compare(run_, options_, reference, {2, 2, 1});
  }
}

// The runs have deterministic: true, and nothing that an earlier run left.
TEST_F(TwoGpus, TheSameRanksGiveTheSameBits) {
  ShortTraining run = run_;
  run.config = middle_size_config();
  options_.gpu.deterministic = true;
  for (const StateTypes& types :
       {StateTypes::all(DType::kF32), StateTypes{.weights = DType::kBF16, .moments = DType::kBF16}}) {
    options_.types = types;
    for (const int ep : {1, 2})
      for (const int zero_stage : {0, 1}) expect_same_bits(run, options_, {2, ep, zero_stage});
  }
  options_.types = {.weights = DType::kBF16, .masters = true};
  expect_same_bits(run, options_, {2, 2, 1});
}

// Rank 0 measures, and both ranks take what it chose; so does a later run, from its file. fp32's own kernels add in a
// fixed order anyway.
TEST_F(TwoGpus, TheSameChoicesGiveTheSameBits) {
  const TempFolder cache;
  options_.gpu.plan_cache = cache.path();
  for (const int ep : {1, 2})
    expect_same_bits(run_ranks(run_, options_, {2, ep, 1}), run_ranks(run_, options_, {2, ep, 1}));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(cache.path()), {}), 2);  // the file, and its lock
}

// All tokens go to rank 0's experts, and it has no memory for what they leave behind.
TEST_F(TwoGpus, ARankThatGetsAllTokensRecomputes) {
  ShortTraining run = run_;
  run.first_experts = true;
  const TrainingRecord reference = run_alone(run, options_);
  print_heading();
  run.little_memory = true;
  compare(run, options_, reference, {2, 2, 1});
}

TEST_F(TwoGpus, TiedEmbeddings) {
  ShortTraining run = {.config = config_with_experts(4, 2), .layout = {false, 8, 2}, .documents = 13};
  run.config.tie_word_embeddings = true;
  compare_all(run, options_, {2});
}

TEST_F(TwoGpus, AllTokensToOneExpert) {
  compare_all({.config = config_with_experts(8, 1), .layout = {false, 8, 2}, .documents = 13, .first_experts = true},
              options_, {2});
}

TEST_F(TwoGpus, ARankWithoutATokenAndBatchesOfOneTarget) {
  compare_all({.config = config_with_experts(2, 1), .layout = {false, 2, 1}, .documents = 1, .longest = 2}, options_,
              {2});
}

// bf16_parity_test is the program of both ranks.
TEST_F(TwoGpus, Bf16ByTheTwoRuns) {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "bf16_parity_test";
  const Outcome outcome = supervise(
      {.command = {program, "--gtest_filter=*middle_size*"}, .ranks = 2, .timeout = std::chrono::seconds(120)});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.message;
}

// One layer whose tokens go to all experts, as in eight_bit_gpu_test. Both layouts round each token alike; but products
// of other sizes add in another order, and a rounding that falls the other way makes others do so. A layout must change
// the gradients by no more than a hundredth of what 8 bits do (seen: a 1800th); a wrong scale, or one lost on the way,
// changes them by more than all of it.
TEST_F(TwoGpus, EightBitsByWhatTheyCost) {
  ShortTraining run = {.config = middle_size_config(), .layout = {false, 8, 3}, .documents = 19, .longest = 300};
  run.config.num_hidden_layers = 1;
  run.config.num_local_experts = run.config.num_experts_per_tok = 2;
  options_.types = {.weights = DType::kBF16, .masters = true};
  const TrainingRecord bf16 = run_alone(run, options_);
  const bool blocks = asked_apart(
      [] { return static_cast<int>(has_coded_products(gpu_info(0).compute_capability, ScaleRule::kPowerOfTwo)); });
  for (const EightBitScaling scaling : {EightBitScaling::kBlock, EightBitScaling::kMx}) {
    options_.recipe = {.eight_bit = scaling, .multiplies_codes = blocks && scaling == EightBitScaling::kBlock};
    const TrainingRecord alone = run_alone(run, options_);
    const double cost = gradients_apart(bf16, alone);
    for (const Grid& grid : {Grid{2, 1, 0}, Grid{2, 1, 1}, Grid{2, 2, 0}, Grid{2, 2, 1}}) {
      const TrainingRecord ranks = run_ranks(run, options_, grid);
      SCOPED_TRACE(fmt::format("ep {}, zero_stage {}", grid.expert_parallel, grid.zero_stage));
      const double apart = gradients_apart(ranks, alone);
      fmt::print("{}, ep {}, zero_stage {}: gradients {:.1e} apart, 8 bits' {:.1e}\n",
                 scaling == EightBitScaling::kBlock ? "fp8" : "mxfp8", grid.expert_parallel, grid.zero_stage, apart,
                 cost);
      EXPECT_LT(100 * apart, cost);
      for (size_t step = 0; step < alone.losses.size(); ++step) {
        EXPECT_NEAR(ranks.losses[step] / alone.losses[step], 1, step == 0 ? 1e-3 : 3e-3) << "step " << step;
        EXPECT_NEAR(ranks.norms[step] / alone.norms[step], 1, 2e-2) << "step " << step;
      }
    }
  }
}

}  // namespace
}  // namespace mixtune
