// Answers of different weights through the program: its evaluation, and its training.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "base/json_value.h"
#include "program.h"

namespace mixtune {
namespace {

class WeightedData : public testing::Test {
 protected:
  void SetUp() override {
    make_model(work_.path() / "model");
    write(work_.path() / "a.jsonl", record("Define: otter", "an animal that swims", 1) + record("Say a", "a", 1));
    write(work_.path() / "b.jsonl", record("And a newt?", "no", 1) + record("Sure?", "quite", 1));
    write(work_.path() / "both.jsonl", record("Define: otter", "an animal that swims", 0.3) +
                                           record("Say a", "a", 0.3) + record("And a newt?", "no", 2.5) +
                                           record("Sure?", "quite", 2.5));
  }

  static std::string record(const std::string& question, const std::string& answer, double weight) {
    constexpr const char* kRecord = R"({{"messages": [{{"role": "user", "content": "{}"}}, )"
                                    R"({{"role": "assistant", "content": "{}", "weight": {}}}]}})"
                                    "\n";
    return fmt::format(kRecord, question, answer, weight);
  }

  Outcome done(const std::vector<std::string>& args) const {
    const Outcome outcome = run_mixtune(args, work_.path());
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome;
  }

  nlohmann::json evaluate(const std::string& file) const {
    return nlohmann::json::parse(done({"evaluate", "model", "--file", file, "--max_seq_length=64", "--json"}).out);
  }

  TempFolder work_;
};

TEST_F(WeightedData, AnEvaluationIsTheWeightedMeanOfItsParts) {
  const nlohmann::json a = evaluate("a.jsonl"), b = evaluate("b.jsonl"), both = evaluate("both.jsonl");
  const double of_a = 0.3 * a["tokens"].get<double>(), of_b = 2.5 * b["tokens"].get<double>();
  const double expected = (of_a * a["loss"].get<double>() + of_b * b["loss"].get<double>()) / (of_a + of_b);
  EXPECT_NEAR(both["loss"].get<double>(), expected, 1e-6 * expected);
  EXPECT_EQ(both["tokens"], a["tokens"].get<int64_t>() + b["tokens"].get<int64_t>());
  EXPECT_GT(std::abs(a["loss"].get<double>() - b["loss"].get<double>()), 1e-3);  // or any weights would do
}

TEST_F(WeightedData, AStepsLossIsTheSameMeanOnEveryLayout) {
  const nlohmann::json expected = evaluate("both.jsonl");
  const auto train = [&](std::vector<std::string> layout) {
    std::vector<std::string> args = {"train",
                                     "--model_name_or_path=model",
                                     "--train_file=both.jsonl",
                                     "--output_dir=out",
                                     "--overwrite_output_dir",
                                     "--max_steps=2",
                                     "--max_seq_length=64",
                                     "--router_aux_loss_coef=0"};
    args.insert(args.end(), layout.begin(), layout.end());
    done(args);
    std::vector<nlohmann::json> records;
    std::istringstream lines(read(work_.path() / "out/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) records.push_back(nlohmann::json::parse(line));
    return records;
  };
  const auto one = train({"--per_device_train_batch_size=4"}),
             accumulated = train({"--per_device_train_batch_size=1", "--gradient_accumulation_steps=4"}),
             ranks = train({"--per_device_train_batch_size=1", "--gradient_accumulation_steps=2", "--nproc=2"});
  for (const auto& records : {one, accumulated, ranks}) {
    ASSERT_EQ(records.size(), one.size());
    const auto loss = [&](size_t step) {
      return records[step]["lm_loss"].get<double>();
    };
    EXPECT_EQ(records[0]["target_tokens"], expected["tokens"]);
    EXPECT_NEAR(loss(0), expected["loss"].get<double>(), 1e-6 * loss(0));
    EXPECT_NEAR(loss(1), one[1]["lm_loss"].get<double>(), 1e-5 * loss(1));
    EXPECT_NEAR(records[0]["grad_norm"].get<double>(), one[0]["grad_norm"].get<double>(), 1e-6 * loss(0));
  }
}

}  // namespace
}  // namespace mixtune
