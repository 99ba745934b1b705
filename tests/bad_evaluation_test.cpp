// An evaluation whose loss is not finite is reported, and costs neither the run nor a checkpoint.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "base/json_value.h"
#include "base/temp_folder.h"
#include "base/test_paths.h"
#include "config/load.h"
#include "train/trainer.h"

namespace mixtune {
namespace {

class BadEvaluation : public testing::Test {
 protected:
  // What an evaluation logs while the embedding is NaN.
  std::string evaluate_badly() {
    const Tensor embedding = trainer_.instance().state().weight(0);
    float* values = embedding.as<float>();
    const std::vector<float> kept(values, values + embedding.elements());
    std::fill_n(values, kept.size(), std::numeric_limits<float>::quiet_NaN());
    testing::internal::CaptureStderr();
    trainer_.evaluate(1);
    std::ranges::copy(kept, values);
    return testing::internal::GetCapturedStderr();
  }

  static Config config_of(const std::string& out) {
    const std::string fixture = source_path("tests/fixtures/hf/plain");
    return load_config(std::nullopt, {{"model_name_or_path", fixture},
                                      {"train_file", fixture + "/train.jsonl"},
                                      {"validation_file", fixture + "/train.jsonl"},
                                      {"output_dir", out},
                                      {"data_cache", "off"},
                                      {"device", "cpu"},
                                      {"max_steps", "1"},
                                      {"max_seq_length", "64"}});
  }

  const TempFolder folder_;
  const std::string out_ = folder_ / "out";
  Trainer trainer_{config_of(out_)};
};

TEST_F(BadEvaluation, OfTheEndIsTheRunsExitCode) {
  trainer_.open_output();
  EXPECT_EQ(evaluate_badly().find("mixtune: warning: step 1: the evaluation went bad: loss "), 0u);
  trainer_.save(1);
  try {
    trainer_.finish();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kWentBad);
    EXPECT_TRUE(std::string(error.what()).starts_with("step 1: the evaluation went bad: loss ")) << error.what();
  }
  EXPECT_TRUE(std::filesystem::exists(out_ + "/checkpoint-1/model.safetensors"));
  std::ifstream metrics(out_ + "/metrics.jsonl");
  std::string line;
  std::getline(metrics, line);
  EXPECT_TRUE(nlohmann::json::parse(line)["eval_loss"].is_null()) << line;
}

TEST_F(BadEvaluation, BeforeAGoodOneIsAWarning) {
  trainer_.open_output();
  EXPECT_NE(evaluate_badly(), "");
  testing::internal::CaptureStderr();
  trainer_.evaluate(1);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  trainer_.finish();
}

}  // namespace
}  // namespace mixtune
