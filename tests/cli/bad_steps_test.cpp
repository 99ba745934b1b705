// A step whose numbers are not finite on one rank ends the whole run with exit code 17, and saves nothing.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/json_value.h"
#include "program.h"

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

  Outcome train() const {
    return run_mixtune(
        {"train", "--model_name_or_path=model", "--train_file=data.jsonl", "--output_dir=out", "--nproc=2",
         "--per_device_train_batch_size=1", "--num_train_epochs=1", "--shuffle=false", "--save_steps=1",
         "--max_seq_length=64", fmt::format("--expert_model_parallel_size={}", GetParam().expert_parallel)},
        work_.path());
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
  if (bad_step == 1)
    EXPECT_EQ(saved(), std::vector<std::string>{});
  else
    EXPECT_EQ(saved(), std::vector<std::string>{"checkpoint-1"});
}

INSTANTIATE_TEST_SUITE_P(Layouts, BadSteps, testing::Values(Layout{1, 3}, Layout{2, 3}, Layout{2, 2}, Layout{2, 1}),
                         [](const auto& of) {
                           return fmt::format("ep{}_row{}", of.param.expert_parallel, of.param.bad_row);
                         });

}  // namespace
}  // namespace mixtune
