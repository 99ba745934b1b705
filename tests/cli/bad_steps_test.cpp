// A step whose numbers are not finite on one rank ends the whole run with exit code 17, and saves nothing; or is
// skipped by all ranks, where that is asked for.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/json_value.h"
#include "program.h"
#include "stored_weights.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kWentBad = 17;
constexpr int kRareToken = 4000;

// Changes the elements of an fp32 tensor of a checkpoint's file.
void edit(const fs::path& file, const std::string& tensor, const std::function<float(size_t element, float)>& change) {
  std::string bytes = read(file);
  uint64_t size = 0;
  std::memcpy(&size, bytes.data(), sizeof(size));
  const json offsets = json::parse(bytes.substr(sizeof(size), size)).at(tensor)["data_offsets"];
  char* const begin = bytes.data() + sizeof(size) + size + offsets[0].get<uint64_t>();
  const size_t count = (offsets[1].get<uint64_t>() - offsets[0].get<uint64_t>()) / sizeof(float);
  for (size_t i = 0; i < count; ++i) {
    float value = 0;
    std::memcpy(&value, begin + i * sizeof(float), sizeof(float));
    value = change(i, value);
    std::memcpy(begin + i * sizeof(float), &value, sizeof(float));
  }
  write(file, bytes);
}

// Sends the rare token alone to expert 1, whose weights are finite, but overflow in any product.
void make_trap(const fs::path& file) {
  edit(file, "model.embed_tokens.weight", [](size_t i, float value) {
    return i % kHidden != 0 ? value : i / kHidden == kRareToken ? 1.0f : -1.0f;
  });
  const std::string moe = "model.layers.0.block_sparse_moe.";
  edit(file, moe + "gate.weight", [](size_t i, float) { return i == 0 ? -1.0f : i == kHidden ? 1.0f : 0.0f; });
  for (const char* name : {"experts.1.w1.weight", "experts.1.w3.weight"})
    edit(file, moe + name, [](size_t, float) { return 3e38f; });
}

struct Layout {
  int expert_parallel;
  int bad_row;  // of the rare token; row r is of rank r % 2, in step r / 2 + 1
};

class BadSteps : public testing::TestWithParam<Layout> {
 protected:
  void SetUp() override {
    make_model(path("model"));
    make_trap(path("model") / "model.safetensors");
    std::string text;
    for (int row = 0; row < 6; ++row)
      text += fmt::format("{{\"input_ids\": [1, {}, {}, 30, 31, 32]}}\n", 20 + row,
                          row == GetParam().bad_row ? kRareToken : 40 + row);
    write(path("data.jsonl"), text);
  }

  fs::path path(const std::string& name) const { return work_.path() / name; }

  Outcome train(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> args = {"train",
                                     "--model_name_or_path=model",
                                     "--train_file=data.jsonl",
                                     "--output_dir=out",
                                     "--nproc=2",
                                     "--per_device_train_batch_size=1",
                                     "--num_train_epochs=1",
                                     "--shuffle=false",
                                     "--save_steps=1",
                                     "--max_seq_length=64",
                                     fmt::format("--expert_model_parallel_size={}", GetParam().expert_parallel)};
    args.insert(args.end(), more.begin(), more.end());
    return run_mixtune(args, work_.path());
  }

  // Whether all weights of two models are the same bits.
  bool same_weights(const fs::path& a, const fs::path& b) const {
    const auto of_a = weights_in(a), of_b = weights_in(b);
    return std::ranges::equal(of_a, of_b, [](const auto& x, const auto& y) {
      return x.first == y.first && x.second.values == y.second.values;
    });
  }

  std::vector<json> records() const {
    std::vector<json> records;
    for (const std::string& line : lines_of(read(path("out/metrics.jsonl")))) records.push_back(json::parse(line));
    return records;
  }

  std::vector<std::string> saved() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(path("out")))
      if (entry.path().filename().string().find("checkpoint") != std::string::npos)
        names.push_back(entry.path().filename());
    return names;
  }

  const TempFolder work_;
};

TEST_P(BadSteps, OnOneRankEndBothAndSaveNothing) {
  const Outcome outcome = train();
  const int bad_step = GetParam().bad_row / 2 + 1;
  EXPECT_EQ(outcome.code, kWentBad) << outcome.err;
  const std::string message = fmt::format("step {}: training went bad", bad_step);
  const size_t first = outcome.err.find(message);
  ASSERT_NE(first, outcome.err.npos) << outcome.err;
  EXPECT_EQ(outcome.err.find(message, first + 1), outcome.err.npos) << "said twice: " << outcome.err;
  expect_part(read(path("out/report.html")), fmt::format("step {}: the loss or the gradient norm is not", bad_step));
  if (bad_step == 1)
    EXPECT_EQ(saved(), std::vector<std::string>{});
  else
    EXPECT_EQ(saved(), std::vector<std::string>{"checkpoint-1"});
}

TEST_P(BadSteps, AreSkippedWhereAskedAndChangeNothing) {
  const Outcome outcome = train({"--skip_nonfinite_steps=1"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const int bad_step = GetParam().bad_row / 2 + 1;
  const size_t said = outcome.err.find(fmt::format("warning: step {}: loss ", bad_step));
  ASSERT_NE(said, outcome.err.npos) << outcome.err;
  EXPECT_EQ(outcome.err.find("skipped, weights stay as they are", said + 1),
            outcome.err.rfind("skipped, weights stay as they are"))
      << "said twice: " << outcome.err;
  expect_part(outcome.err, "steps of the run that were skipped, as their loss or gradient norm was not finite: 1\n");
  const std::vector<json> of_steps = records();
  ASSERT_EQ(of_steps.size(), 3u);
  for (int step = 1; step <= 3; ++step) {
    const json& record = of_steps[step - 1];
    EXPECT_EQ(record["loss"].is_null() || record["grad_norm"].is_null(), step == bad_step) << record;
    EXPECT_EQ(record["skipped_steps"], step >= bad_step ? 1 : 0) << record;
    const fs::path before = step == 1 ? path("model") : path(fmt::format("out/checkpoint-{}", step - 1));
    EXPECT_EQ(same_weights(before, path(fmt::format("out/checkpoint-{}", step))), step == bad_step) << step;
  }
}

TEST_P(BadSteps, AreCountedOnAfterAResume) {
  ASSERT_EQ(train({"--skip_nonfinite_steps=1"}).code, 0);
  fs::copy(path("out"), path("whole"), fs::copy_options::recursive);
  const int bad_step = GetParam().bad_row / 2 + 1;
  for (int step = bad_step + 1; step <= 3; ++step) fs::remove_all(path(fmt::format("out/checkpoint-{}", step)));
  ASSERT_EQ(train({"--skip_nonfinite_steps=1", "--resume_from_checkpoint=auto"}).code, 0);
  EXPECT_EQ(records().back()["skipped_steps"], 1);
  EXPECT_EQ(read(path("out/checkpoint-3/manifest.json")), read(path("whole/checkpoint-3/manifest.json")));
}

INSTANTIATE_TEST_SUITE_P(Layouts, BadSteps, testing::Values(Layout{1, 3}, Layout{2, 3}, Layout{2, 2}, Layout{2, 1}),
                         [](const auto& of) {
                           return fmt::format("ep{}_row{}", of.param.expert_parallel, of.param.bad_row);
                         });

}  // namespace
}  // namespace mixtune
