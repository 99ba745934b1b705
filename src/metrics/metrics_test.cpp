#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json_value.h"
#include "base/temp_folder.h"
#include "base/test_paths.h"
#include "metrics/fields.h"
#include "metrics/jsonl_sink.h"
#include "metrics/testing.h"

namespace mixtune {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::string read(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

class TempFile {
 public:
  const std::string& path() const { return path_; }

 private:
  const TempFolder folder_;
  const std::string path_ = folder_ / "metrics";
};

TEST(JsonlSink, OnlyTheStepThatHasPlansSaysThem) {
  const TempFile file;
  JsonlSink sink(file.path());
  StepRecord r = record(1);
  r.plans = "00ff00ff00ff00ff";
  sink.step(r);
  sink.step(record(2));
  std::ifstream lines(file.path());
  std::string first, second;
  std::getline(lines, first), std::getline(lines, second);
  EXPECT_EQ(nlohmann::json::parse(first)["plans"], r.plans);
  EXPECT_FALSE(nlohmann::json::parse(second).contains("plans"));
}

TEST(JsonlSink, FieldsRoundTripAndAreOnDiskAtOnce) {
  const TempFile file;
  JsonlSink sink(file.path());
  StepRecord r = record(12);
  r.loss = 0.1 + 0.2;
  r.learning_rate = 1.2345678901234567e-5;
  sink.step(r);
  const auto object = nlohmann::json::parse(read(file.path()));
  EXPECT_EQ(object["step"], 12);
  EXPECT_EQ(object["loss"].get<double>(), r.loss);
  EXPECT_EQ(object["lm_loss"].get<double>(), r.lm_loss);
  EXPECT_EQ(object["aux_loss"].get<double>(), r.aux_loss);
  EXPECT_EQ(object["grad_norm"].get<double>(), r.grad_norm);
  EXPECT_EQ(object["learning_rate"].get<double>(), r.learning_rate);
  EXPECT_EQ(object["tokens"], 2048);
  EXPECT_EQ(object["target_tokens"], 2000);
  EXPECT_EQ(object["tokens_per_second"].get<double>(), r.tokens_per_second);
  EXPECT_EQ(object["model_tflops"].get<double>(), r.model_tflops);
  EXPECT_EQ(object["mfu"].get<double>(), r.mfu);
  EXPECT_EQ(object["epoch"].get<double>(), r.epoch);
  EXPECT_EQ(object["total_steps"], 500);
  EXPECT_EQ(object["milliseconds"].get<double>(), 100);
}

TEST(JsonlSink, NonFiniteIsNull) {
  const TempFile file;
  JsonlSink sink(file.path());
  StepRecord r = record(1);
  r.loss = kNaN;
  r.grad_norm = std::numeric_limits<double>::infinity();
  sink.step(r);
  const auto object = nlohmann::json::parse(read(file.path()));
  EXPECT_TRUE(object["loss"].is_null());
  EXPECT_TRUE(object["grad_norm"].is_null());
}

TEST(JsonlSink, OneLineARecordAndEvaluationsHaveNoLoss) {
  const TempFile file;
  JsonlSink sink(file.path());
  sink.step(record(1));
  sink.evaluation({.step = 1, .eval_loss = 2, .eval_perplexity = 7.4, .eval_tokens = 10, .milliseconds = 5});
  sink.step(record(2));
  sink.finish();
  std::ifstream in(file.path());
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[1]["eval_loss"], 2.0);
  EXPECT_EQ(lines[1]["eval_perplexity"], 7.4);
  EXPECT_EQ(lines[1]["eval_tokens"], 10);
  EXPECT_FALSE(lines[1].contains("loss"));
  EXPECT_EQ(lines[2]["step"], 2);
}

// As transformers names them.
TEST(JsonlSink, NumbersOfASetHaveItsName) {
  const TempFile file;
  JsonlSink sink(file.path());
  sink.evaluation(
      {.name = "chat", .step = 3, .eval_loss = 2, .eval_perplexity = 7.5, .eval_tokens = 10, .milliseconds = 5});
  sink.finish();
  EXPECT_EQ(read(file.path()),
            "{\"step\":3,\"eval_chat_loss\":2.0,\"eval_chat_perplexity\":7.5,\"eval_chat_tokens\":10,"
            "\"milliseconds\":5.0}\n");
}

TEST(JsonlSink, OneProcessHasNoFieldsOfRanks) {
  const TempFile file;
  JsonlSink sink(file.path());
  sink.step(record(12));
  EXPECT_EQ(
      read(file.path()),
      R"({"step":12,"total_steps":500,"epoch":0.25,"loss":3.4567,"lm_loss":3.4,"aux_loss":2.835,)"
      R"("z_loss":0.0,"grad_norm":1.25,"router_grad_norm":0.125,"expert_imbalance":1.5,"expert_share":0.375,)"
      R"("router_entropy":0.75,"router_logit_scale":2.5,)"
      R"("learning_rate":4.9e-05,"tokens":2048,"target_tokens":2000,)"
      R"("drop_rate":0.0,"dropped_tokens_rate":0.0,"recomputed_layers":0,)"
      R"("skipped_steps":0,"memory_gib":1.75,"tokens_per_second":12345.6,"model_tflops":405.5,"mfu":0.41,"milliseconds":100.0})"
      "\n");
}

TEST(JsonlSink, FieldsOfRanksAreLists) {
  const TempFile file;
  JsonlSink sink(file.path());
  const ParallelRecord parallel{.ranks = {{.tokens = 1000,
                                           .exchange_bytes = int64_t{1} << 40,
                                           .exchange_milliseconds = 1.5,
                                           .exchange_exposed_milliseconds = 1.25,
                                           .gradient_sum_milliseconds = 2.5,
                                           .weight_gather_milliseconds = 3.5,
                                           .collective_milliseconds = 8,
                                           .memory_gib = 61.5},
                                          {.tokens = 1048, .collective_milliseconds = 0.25}}};
  StepRecord r = record(1);
  r.parallel = &parallel;
  sink.step(r);
  const std::string line = read(file.path());
  EXPECT_NE(line.find(R"("milliseconds":100.0,"rank_tokens":[1000,1048],"rank_exchange_bytes":[1099511627776,0],)"
                      R"("rank_exchange_milliseconds":[1.5,0.0],"rank_exchange_exposed_milliseconds":[1.25,0.0],)"
                      R"("rank_gradient_sum_milliseconds":[2.5,0.0],)"
                      R"("rank_weight_gather_milliseconds":[3.5,0.0],"rank_collective_milliseconds":[8.0,0.25],)"
                      R"("rank_memory_gib":[61.5,0.0]})"),
            std::string::npos)
      << line;
}

// What a step's routers did in two layers.
const RouterRecord kRouters = {.expert_tokens = {3, 1, 4},
                               .layer_expert_tokens = {{2, 0, 2}, {1, 1, 2}},
                               .layer_imbalance = {1.5, 1.5},
                               .layer_share = {0.5, 0.5},
                               .layer_entropy = {0.5, 0.75},
                               .layer_logit_scale = {1, 2.5}};

TEST(JsonlSink, ListsOfLayersAreInTheFirstStepAndEachTenth) {
  const TempFile file;
  JsonlSink sink(file.path());
  for (int64_t step = 1; step <= 20; ++step) {
    StepRecord r = record(step);
    r.routers = &kRouters;
    sink.step(r);
  }
  std::ifstream lines(file.path());
  std::vector<int64_t> with_layers;
  for (std::string line; std::getline(lines, line);) {
    const auto object = nlohmann::json::parse(line);
    EXPECT_EQ(object["expert_tokens"], nlohmann::json({3, 1, 4}));
    if (!object.contains("layer_expert_tokens")) continue;
    with_layers.push_back(object["step"]);
    EXPECT_EQ(object["layer_expert_tokens"], nlohmann::json({{2, 0, 2}, {1, 1, 2}}));
    EXPECT_EQ(object["layer_router_entropy"], nlohmann::json({0.5, 0.75}));
    EXPECT_EQ(object["layer_router_logit_scale"], nlohmann::json({1.0, 2.5}));
  }
  EXPECT_EQ(with_layers, (std::vector<int64_t>{1, 10, 20}));
}

TEST(JsonlSink, OperandsHaveTwoSharesAndAListOfLayersEach) {
  const TempFile file;
  JsonlSink sink(file.path());
  std::vector<OperandLoss> operands(std::size(kOperandFields), {.flushed = 0, .saturated = 0, .amax = {1, 2}});
  operands[0] = {.flushed = 0.25, .saturated = 0.5, .amax = {3, 4.5}};
  StepRecord r = record(1);
  r.operands = &operands;
  sink.step(r);
  const std::string line = read(file.path());
  EXPECT_NE(line.find(R"("milliseconds":100.0,"flushed_qkv_input":0.25,"saturated_qkv_input":0.5,)"
                      R"("amax_qkv_input":[3.0,4.5],"flushed_qkv_weight":0.0,)"),
            std::string::npos)
      << line;
  EXPECT_NE(line.find(R"("saturated_down_gradient":0.0,"amax_down_gradient":[1.0,2.0]})"), std::string::npos) << line;
}

// Expects that the page has these lines, in this order.
void expect_lines(const std::string& page, const std::vector<std::string>& expected) {
  std::vector<std::string> found;
  std::ifstream docs(source_path(page));
  for (std::string line; std::getline(docs, line);)
    if (std::ranges::count(expected, line) > 0) found.push_back(line);
  EXPECT_EQ(found, expected) << page;
}

TEST(Fields, AreDocumentedInTheirOrder) {
  std::vector<std::string> rows;
  const auto add = [&](const char* prefix, const auto& field) {
    rows.push_back(fmt::format("| `{}{}` | {} |", prefix, field.name, field.meaning));
  };
  for (const auto& field : kStepFields) add("", field);
  for (const auto& field : kRankFields) add("rank_", field);
  for (const LayerField& field : kLayerFields) add("", field);
  for (const auto& field : kLossFields) rows.push_back(fmt::format("| `{}_OPERAND` | {} |", field.name, field.meaning));
  rows.push_back(fmt::format("| `{}_OPERAND` | {} |", kAmaxField.name, kAmaxField.meaning));
  for (const OperandField& field : kOperandFields) add("", field);
  for (const auto& field : kEvalFields) add("", field);
  expect_lines("docs/cli.md", rows);
}

TEST(Fields, OtherNamesInTensorBoardAreDocumented) {
  std::vector<std::string> rows;
  const auto add = [&](const auto& field) {
    const std::string tag = field.tag;
    if (!tag.empty() && tag != field.name) rows.push_back(fmt::format("| `{}` | `{}` |", field.name, tag));
  };
  for (const auto& field : kStepFields) add(field);
  for (const auto& field : kEvalFields) add(field);
  expect_lines("docs/watching.md", rows);
}

TEST(Fields, OfARankAreAllOfItsRecord) {
  RankRecord record, told;
  static_assert(sizeof(RankRecord) == std::size(kRankFields) * sizeof(double));
  for (size_t i = 0; i < std::size(kRankFields); ++i) kRankFields[i].set(record, static_cast<double>(i + 1));
  for (const RankField& field : kRankFields) field.set(told, field.get(record));
  for (size_t i = 0; i < std::size(kRankFields); ++i) EXPECT_EQ(kRankFields[i].get(told), i + 1) << kRankFields[i].name;
}

TEST(JsonlSink, IsAlwaysANewFile) {
  try {
    JsonlSink("/nonexistent/metrics.jsonl");
    FAIL();
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("No such file or directory"), std::string::npos) << error.what();
  }
  const TempFolder folder;
  std::ofstream(folder / "precious") << "theirs";
  std::filesystem::create_symlink(folder / "precious", folder / "link");
  std::filesystem::create_symlink(folder / "nowhere", folder / "dangling");
  for (const char* name : {"precious", "link", "dangling"}) EXPECT_THROW(JsonlSink(folder / name), UserError) << name;
  EXPECT_EQ(read(folder / "precious"), "theirs");
  EXPECT_FALSE(std::filesystem::exists(folder / "nowhere"));
}

TEST(JsonlSink, AFullDiskCostsTheLinesThatDoNotFit) {
  const TempFile file;
  JsonlSink sink(file.path());
  sink.step(record(1));
  const auto line = std::filesystem::file_size(file.path());
  testing::internal::CaptureStderr();
  {
    const FullDisk disk(line * 5 / 2);  // a part of the third line fits
    for (int64_t step = 2; step <= 5; ++step) sink.step(record(step));
    EXPECT_EQ(std::filesystem::file_size(file.path()), 2 * line);
  }
  sink.step(record(6));
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            fmt::format("mixtune: warning: {}: cannot be written: File too large; the run goes on without what is lost "
                        "there\n",
                        file.path()));
  testing::internal::CaptureStderr();
  sink.finish();
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            fmt::format("mixtune: warning: {}: 3 records could not be written, and are missing\n", file.path()));
  std::vector<int64_t> steps;
  std::ifstream in(file.path());
  for (std::string text; std::getline(in, text);) steps.push_back(nlohmann::json::parse(text)["step"]);
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 2, 6}));
}

}  // namespace
}  // namespace mixtune
