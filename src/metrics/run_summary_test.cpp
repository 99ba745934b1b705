#include "metrics/run_summary.h"

#include <gmock/gmock.h>

#include <limits>

namespace mixtune {
namespace {

using testing::ElementsAre;

StepRecord step_of(int64_t step, double milliseconds) {
  return {.step = step, .tokens = 1000, .milliseconds = milliseconds};
}

EvalRecord evaluation_of(int64_t step, double loss) {
  return {.step = step, .eval_loss = loss, .milliseconds = 1000};
}

TEST(RunSummary, OfNoStepThereIsNone) {
  RunSummary summary;
  EXPECT_THAT(summary.lines(), ElementsAre());
  summary.add(evaluation_of(0, 3));
  EXPECT_THAT(summary.lines(), ElementsAre());
}

TEST(RunSummary, OfSteps) {
  RunSummary summary;
  for (const double milliseconds : {5000.0, 100.0, 200.0}) summary.add(step_of(11, milliseconds));
  summary.add(step_of(14, 300));
  EXPECT_THAT(summary.lines(), ElementsAre("steps 11 to 14: 4,000 tokens in 0:06, 714 tok/s; median step 300 ms"));
}

TEST(RunSummary, OfSpeedMemoryAndDrops) {
  RunSummary summary;
  const double tflops[] = {100, 420, 410}, drops[] = {0, 0.03, 0.01}, gib[] = {61.44, 61.5, 20};
  for (int i = 0; i < 3; ++i) {
    StepRecord record = step_of(i + 1, 100);
    record.model_tflops = tflops[i];
    record.drop_rate = drops[i];
    record.memory_gib = gib[i];
    record.tokens = i == 1 ? 2000 : 1000;
    summary.add(record);
  }
  const std::string dropped = "dropped: 1.75% of all pairs of a token and an expert, 3.00% in the worst step";
  EXPECT_THAT(summary.lines(), ElementsAre(testing::_, "the model's operations: median 410 TFLOP/s of each device",
                                           "most memory in use: 61.5 GiB", dropped));
  StepRecord record = step_of(4, 100);
  record.mfu = 0.4146;
  summary.add(record);
  const DeviceScale scale = {.memory_gib = 79.6, .peak = "989 TFLOP/s, bf16 dense, H200"};
  EXPECT_EQ(summary.lines(scale)[1],
            "the model's operations: median 410 TFLOP/s of each device, mfu 41.5% of 989 TFLOP/s, bf16 dense, H200");
  EXPECT_EQ(summary.lines(scale)[2], "most memory in use: 61.5 of 80 GiB");
}

TEST(RunSummary, OfEvaluations) {
  RunSummary summary;
  summary.add(evaluation_of(0, 4));
  summary.add(step_of(1, 1000));
  summary.add(evaluation_of(1, 2.5));
  summary.add(step_of(2, 1000));
  summary.add(evaluation_of(2, 2.25));
  summary.add(evaluation_of(3, std::numeric_limits<double>::quiet_NaN()));
  EXPECT_THAT(summary.lines(),
              ElementsAre("steps 1 to 2: 2,000 tokens in 0:02, 1,000 tok/s; median step 1,000 ms; 0:04 of evaluations",
                          "evaluations: before training lm 4.0000, best lm 2.2500 (step 2), last lm nan (step 3)"));
}

TEST(RunSummary, OfSetsByName) {
  RunSummary summary;
  summary.add(step_of(1, 1000));
  for (const double loss : {2.0, 3.0}) {
    EvalRecord code = evaluation_of(static_cast<int64_t>(loss), loss), chat = evaluation_of(code.step, 4 - loss);
    code.name = "code", chat.name = "chat";
    summary.add(code);
    summary.add(chat);
  }
  ASSERT_EQ(summary.lines().size(), 3u);
  EXPECT_EQ(summary.lines()[1], "evaluations of chat: best lm 1.0000 (step 3), last lm 1.0000 (step 3)");
  EXPECT_EQ(summary.lines()[2], "evaluations of code: best lm 2.0000 (step 2), last lm 3.0000 (step 3)");
}

TEST(RunSummary, OfSharedExperts) {
  RunSummary summary;
  for (const double imbalance : {1.5, 4.0, 1.25}) {
    StepRecord record = step_of(1, 10);
    record.expert_imbalance = imbalance;
    summary.add(record);
  }
  ASSERT_EQ(summary.lines().size(), 2u);
  EXPECT_EQ(summary.lines()[1],
            "expert imbalance (most / mean, of the layer where it is largest): median 1.50, most 4.00");
}

}  // namespace
}  // namespace mixtune
