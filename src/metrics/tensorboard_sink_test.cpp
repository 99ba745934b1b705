#include "metrics/tensorboard_sink.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "base/error.h"
#include "base/temp_folder.h"
#include "metrics/fields.h"
#include "metrics/testing.h"

namespace mixtune {
namespace {

class TensorBoard : public testing::Test {
 protected:
  TempFolder folder_;
  const std::string path_ = folder_ / "events";
};

TEST_F(TensorBoard, FileBeginsAsItsReadersExpect) {
  for (const int64_t first_step : {1, 41}) {
    const std::string path = folder_ / std::to_string(first_step);
    { const TensorBoardSink sink(path, first_step); }
    const std::vector<SeenEvent> events = seen_events(path);
    ASSERT_EQ(events.size(), 2u);
    EXPECT_EQ(events[0].version, "brain.Event:2");
    EXPECT_EQ(events[0].writer, "mixtune");
    EXPECT_TRUE(events[1].begins);
    EXPECT_EQ(events[1].step, first_step);
  }
}

TEST_F(TensorBoard, NumbersOfAStepAreInTheFileAtOnce) {
  TensorBoardSink sink(path_, 1);
  StepRecord r = record(300);
  r.recomputed_layers = 7;
  r.skipped_steps = 3;
  const double before = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  sink.step(r);
  const SeenEvent event = seen_events(path_).at(2);
  EXPECT_EQ(event.step, 300);
  EXPECT_NEAR(event.wall, before, 10);
  EXPECT_EQ(event.scalars, (std::map<std::string, float>{{"epoch", 0.25f},
                                                         {"loss", 3.4567f},
                                                         {"lm loss", 3.4f},
                                                         {"aux_loss", 2.835f},
                                                         {"z_loss", 0},
                                                         {"grad-norm", 1.25f},
                                                         {"router_grad_norm", 0.125f},
                                                         {"expert_imbalance", 1.5f},
                                                         {"expert_share", 0.375f},
                                                         {"router_entropy", 0.75f},
                                                         {"router_logit_scale", 2.5f},
                                                         {"memory_gib", 1.75f},
                                                         {"learning-rate", 4.9e-5f},
                                                         {"tokens", 2048},
                                                         {"target_tokens", 2000},
                                                         {"drop_rate", 0},
                                                         {"dropped_tokens_rate", 0},
                                                         {"recomputed_layers", 7},
                                                         {"skipped_steps", 3},
                                                         {"tokens_per_second", 12345.6f},
                                                         {"throughput", 405.5f},  // as Megatron-LM has it
                                                         {"mfu", 0.41f},
                                                         {"iteration-time", 0.1f}}));
}

TEST_F(TensorBoard, NumbersOfAnEvaluation) {
  TensorBoardSink sink(path_, 1);
  sink.evaluation({.step = 12, .eval_loss = 2.5, .eval_perplexity = 12.25, .eval_tokens = 99, .milliseconds = 150});
  const SeenEvent event = seen_events(path_).at(2);
  EXPECT_EQ(event.step, 12);
  EXPECT_EQ(event.scalars, (std::map<std::string, float>{{"lm loss validation", 2.5f},
                                                         {"lm loss validation ppl", 12.25f},
                                                         {"eval_tokens", 99},
                                                         {"eval_milliseconds", 150}}));
}

TEST_F(TensorBoard, NumbersOfASetAreACurveOfItsName) {
  TensorBoardSink sink(path_, 1);
  sink.evaluation(
      {.name = "chat", .step = 12, .eval_loss = 2.5, .eval_perplexity = 12.25, .eval_tokens = 99, .milliseconds = 150});
  EXPECT_EQ(seen_events(path_).at(2).scalars, (std::map<std::string, float>{{"lm loss validation/chat", 2.5f},
                                                                            {"lm loss validation ppl/chat", 12.25f},
                                                                            {"eval_tokens/chat", 99},
                                                                            {"eval_milliseconds/chat", 150}}));
}

TEST_F(TensorBoard, NumbersOfRanksAndExpertsAreAScalarEach) {
  TensorBoardSink sink(path_, 1);
  const ParallelRecord parallel{.ranks = {{.tokens = 1000, .exchange_bytes = int64_t{1} << 40},
                                          {.tokens = 1048, .collective_milliseconds = 0.25}}};
  const RouterRecord routers{.expert_tokens = {3, 0, 5}, .layer_entropy = {0.5, 0.25}, .layer_logit_scale = {1, 2}};
  StepRecord r = record(1);
  sink.step(r);
  r.parallel = &parallel;
  r.routers = &routers;
  sink.step(r);
  const std::vector<SeenEvent> events = seen_events(path_);
  std::map<std::string, float> scalars = events.at(3).scalars;
  for (const auto& [tag, value] : events.at(2).scalars) EXPECT_EQ(scalars.erase(tag), 1u);
  EXPECT_EQ(scalars.size(), 2u * 8 + 3 + 2 + 2);
  for (const auto& [tag, value] : std::map<std::string, float>{{"rank_tokens/0", 1000},
                                                               {"rank_tokens/1", 1048},
                                                               {"rank_exchange_bytes/0", 0x1p40f},
                                                               {"rank_collective_milliseconds/1", 0.25f},
                                                               {"expert_tokens/0", 3},
                                                               {"expert_tokens/2", 5},
                                                               {"layer_router_entropy/1", 0.25f},
                                                               {"layer_router_logit_scale/1", 2}})
    EXPECT_EQ(scalars.at(tag), value) << tag;
}

TEST_F(TensorBoard, LayersHaveAHistogramOfExpertsAndAPictureOfAll) {
  TensorBoardSink sink(path_, 1);
  const RouterRecord routers{.expert_tokens = {4, 2, 2}, .layer_expert_tokens = {{0, 2, 2}, {4, 0, 0}}};
  for (const int64_t step : {1, 2, 10}) {
    StepRecord r = record(step);
    r.routers = &routers;
    sink.step(r);
  }
  const std::vector<SeenEvent> events = seen_events(path_);
  EXPECT_TRUE(events.at(3).counts.empty() && events.at(3).pictures.empty());
  for (const size_t i : {2, 4}) {
    using Buckets = std::map<double, double>;
    EXPECT_EQ(events.at(i).counts.at("layer_expert_tokens/0"), (Buckets{{2, 2}, {3, 2}}));
    EXPECT_EQ(events.at(i).counts.at("layer_expert_tokens/1"), (Buckets{{1, 4}}));
    const std::string& png = events.at(i).pictures.at("layer_expert_load");
    EXPECT_EQ(png.substr(0, 24), std::string("\x89PNG\r\n\x1A\n\0\0\0\rIHDR\0\0\0\x24\0\0\0\x18", 24));  // 36 by 24
  }
}

TEST_F(TensorBoard, NumbersOfOperandsHaveTheirNamesAndLayers) {
  TensorBoardSink sink(path_, 1);
  std::vector<OperandLoss> operands(std::size(kOperandFields), {.flushed = 0, .saturated = 0, .amax = {1, 2, 4}});
  operands[1].flushed = 0.25;
  StepRecord r = record(1);
  sink.step(r);
  r.operands = &operands;
  sink.step(r);
  const std::vector<SeenEvent> events = seen_events(path_);
  const std::map<std::string, float> scalars = events.at(3).scalars;
  EXPECT_EQ(scalars.size(), events.at(2).scalars.size() + 12 * (2 + 3));
  EXPECT_EQ(scalars.at("flushed_qkv_weight"), 0.25f);
  EXPECT_EQ(scalars.at("saturated_down_gradient"), 0);
  EXPECT_EQ(scalars.at("amax_gate_up_input/2"), 4);
}

TEST_F(TensorBoard, NonFiniteNumbersAreThemselves) {
  TensorBoardSink sink(path_, 1);
  StepRecord r = record(1);
  r.loss = std::numeric_limits<double>::quiet_NaN();
  r.grad_norm = std::numeric_limits<double>::infinity();
  sink.step(r);
  const SeenEvent event = seen_events(path_).at(2);
  EXPECT_TRUE(std::isnan(event.scalars.at("loss")));
  EXPECT_EQ(event.scalars.at("grad-norm"), std::numeric_limits<float>::infinity());
}

TEST_F(TensorBoard, FileIsAlwaysANewOne) {
  std::ofstream(folder_ / "precious") << "theirs";
  std::filesystem::create_symlink(folder_ / "nowhere", folder_ / "dangling");
  for (const char* name : {"precious", "dangling", "no folder/events"})
    EXPECT_THROW(TensorBoardSink(folder_ / name, 1), Error) << name;
  EXPECT_EQ(std::filesystem::file_size(folder_ / "precious"), 6u);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "nowhere"));
}

TEST_F(TensorBoard, AFullDiskCostsTheStepsThatDoNotFit) {
  TensorBoardSink sink(path_, 1);
  const auto head = std::filesystem::file_size(path_);
  sink.step(record(1));
  const auto one = std::filesystem::file_size(path_) - head;
  testing::internal::CaptureStderr();
  {
    const FullDisk disk(head + one * 5 / 2);  // a part of the third event fits
    for (int64_t step = 2; step <= 5; ++step) sink.step(record(step));
    EXPECT_EQ(std::filesystem::file_size(path_), head + 2 * one);
  }
  sink.step(record(6));
  sink.finish();
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            fmt::format("mixtune: warning: {0}: cannot be written: File too large; the run goes on without what is "
                        "lost there\nmixtune: warning: {0}: 3 records could not be written, and are missing\n",
                        path_));
  std::vector<int64_t> steps;
  for (const SeenEvent& event : seen_events(path_)) steps.push_back(event.step);
  EXPECT_EQ(steps, (std::vector<int64_t>{0, 1, 1, 2, 6}));
}

}  // namespace
}  // namespace mixtune
