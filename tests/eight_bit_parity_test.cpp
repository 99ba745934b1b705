// Training in 8-bit precision on the CPU, as an emulation in PyTorch inside transformers' model does it: the fixture of
// scripts/make_eight_bit_fixtures.py.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/json_value.h"
#include "base/temp_folder.h"
#include "base/test_paths.h"
#include "config/load.h"
#include "train/trainer.h"

namespace mixtune {
namespace {

using nlohmann::json;

// Rounding to 8 bits turns a last bit, which sums in another order have, into a step of 6%, here and there, and
// backward spreads it. E5M2's steps, of gradients scaled by tensor, are twice as large.
constexpr double kFirstLoss = 1e-5, kLoss = 2e-4, kFirstNorm = 2.5e-3, kNorm = 5e-3, kNormE5M2 = 1e-2;

const json& fixture() {
  static const json expected = json::parse(std::ifstream(source_path("tests/fixtures/eight_bit/expected.json")));
  return expected;
}

class EightBitParity : public testing::TestWithParam<std::string> {
 protected:
  static const json& run_of(const std::string& name) {
    for (const json& run : fixture()["runs"])
      if (run["name"] == name) return run;
    throw std::runtime_error("the fixture has no " + name);
  }

  std::vector<StepRecord> train(const json& settings) const {
    const std::string from = source_path("tests/fixtures/eight_bit");
    Overrides overrides = {{"model_name_or_path", from},
                           {"train_file", from + "/train.jsonl"},
                           {"output_dir", folder_ / "out"},
                           {"data_cache", "off"},
                           {"device", "cpu"}};
    for (const auto& [key, value] : settings.items())
      overrides.emplace_back(key, value.is_string() ? value.get<std::string>() : value.dump());
    Trainer trainer(load_config(from + "/train.yaml", overrides));
    std::vector<StepRecord> records;
    for (int64_t step = 1; step <= trainer.total_steps(); ++step) records.push_back(trainer.step(step));
    return records;
  }

  TempFolder folder_;
};

double difference(double actual, const json& expected) {
  return std::abs(actual / expected.get<double>() - 1);
}

// Whether the step's figures are those of `run`, as far as the bounds tell.
testing::AssertionResult is_same(double loss, double norm, const json& run, size_t step) {
  const json& expected = run["steps"][step];
  const bool e5m2 = run["settings"].value("fp8_scaling", "") == "tensor";
  const double off = difference(loss, expected["loss"]), norm_off = difference(norm, expected["grad_norm"]);
  if (off <= (step == 0 ? kFirstLoss : kLoss) && norm_off <= (step == 0 ? kFirstNorm : e5m2 ? kNormE5M2 : kNorm))
    return testing::AssertionSuccess();
  return testing::AssertionFailure() << "step " << step + 1 << ": the loss is off by " << off << ", the norm by "
                                     << norm_off;
}

TEST_P(EightBitParity, SixSteps) {
  const json& expected = run_of(GetParam());
  const std::vector<StepRecord> records = train(expected["settings"]);
  ASSERT_EQ(records.size(), expected["steps"].size());
  for (size_t i = 0; i < records.size(); ++i) {
    EXPECT_TRUE(is_same(records[i].loss, records[i].grad_norm, expected, i));
    EXPECT_EQ(records[i].tokens, expected["steps"][i]["tokens"]);
  }
}

// The bounds tell every setting from every other, fp32 among them.
TEST_P(EightBitParity, NoOtherSettingPasses) {
  const json& expected = run_of(GetParam());
  for (const json& other : fixture()["runs"]) {
    bool same = true;
    for (size_t i = 0; i < other["steps"].size(); ++i) {
      const json& step = other["steps"][i];
      same = same && is_same(step["loss"], step["grad_norm"], expected, i);
    }
    EXPECT_EQ(same, other["name"] == GetParam()) << other["name"];
  }
}

INSTANTIATE_TEST_SUITE_P(Settings, EightBitParity,
                         testing::Values("mxfp8", "fp8_block", "fp8_block_fp32_scales", "fp8_tensor",
                                         "fp8_tensor_fp32_scales", "fp32"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace mixtune
