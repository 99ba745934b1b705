// `mixtune diff`: how far two models lie apart.
#include <cstring>

#include "base/test_paths.h"
#include "rank_runs.h"

namespace mixtune {
namespace {

class Diff : public RankRuns {
 protected:
  Outcome diff(const std::string& a, const std::string& b, int code, const Args& more = {}) const {
    Args args = {"diff", a, b};
    args.insert(args.end(), more.begin(), more.end());
    Outcome outcome = run(args);
    EXPECT_EQ(outcome.code, code) << outcome.out << outcome.err;
    return outcome;
  }

  // Adds to the first value of the first tensor of a folder's file, model.embed_tokens.weight.
  void add_to_head(const std::string& folder, float value) const {
    std::string file = read(path(folder + "/model.safetensors"));
    uint64_t size = 0;
    std::memcpy(&size, file.data(), sizeof(size));
    float first = 0;
    std::memcpy(&first, file.data() + sizeof(size) + size, sizeof(first));
    first += value;
    std::memcpy(file.data() + sizeof(size) + size, &first, sizeof(first));
    write(path(folder + "/model.safetensors"), file);
  }

  void copy_model(const std::string& to) const { fs::copy(path("model"), path(to)); }
};

TEST_F(Diff, OfTheSameNothing) {
  done({"export", "model", "shards", "--max_shard_size=100KB"});
  const Outcome outcome = diff("model", "shards", 0);
  EXPECT_EQ(outcome.out, "16 of 16 tensors are the same, bit for bit\n");
  const auto object = nlohmann::json::parse(diff("model", "shards/", 0, {"--json"}).out);
  EXPECT_EQ(object["same"], true);
  EXPECT_EQ(object["tensors"].size(), 16u);
}

TEST_F(Diff, OfAnElement) {
  copy_model("other");
  add_to_head("other", 0.5f);
  const std::vector<std::string> lines = lines_of(diff("model", "other", 1).out);
  ASSERT_EQ(lines.size(), 3u);
  expect_part(lines[0], "relative");
  expect_part(lines[1], "5.000e-01");
  expect_part(lines[1], "1 of 65536  model.embed_tokens.weight");
  EXPECT_EQ(
      lines[2],
      "15 of 16 tensors are the same, bit for bit; the largest difference is 5.000e-01, in model.embed_tokens.weight");
}

TEST_F(Diff, OfARunFromItsBase) {
  done(train("out", {"--max_steps=1", "--per_device_train_batch_size=2", "--save_dtype=bf16"}));
  const Outcome outcome = diff("model", "out", 1, {"--sort=relative"});
  expect_part(outcome.out, "config.json: torch_dtype: \"float32\" in A, \"bfloat16\" in B\n");
  expect_part(outcome.out, "model.norm.weight (fp32 [16] in A, bf16 [16] in B)\n");
  expect_part(outcome.out, "\n0 of 16 tensors are the same");
  const auto object = nlohmann::json::parse(diff("model", "out", 1, {"--json"}).out);
  double last = std::numeric_limits<double>::infinity();
  for (const auto& tensor : object["tensors"]) {
    EXPECT_EQ(tensor["b"]["dtype"], "bf16");
    EXPECT_LE(tensor["relative"], last);
    EXPECT_LE(tensor["mean"], tensor["largest"]);
    last = tensor["relative"];
  }
  EXPECT_LT(last, 0.1);
  std::vector<std::string> names;
  const auto by_name = nlohmann::json::parse(diff("model", "out", 1, {"--json", "--sort=name"}).out);
  for (const auto& tensor : by_name["tensors"]) names.push_back(tensor["name"]);
  EXPECT_TRUE(std::ranges::is_sorted(names));
  EXPECT_EQ(by_name["config"]["torch_dtype"]["b"], "bfloat16");
}

TEST_F(Diff, OfModelsOfOtherShapes) {
  std::string config = read(path("model/config.json"));
  config.replace(config.find("4096"), 4, "4097");
  config.replace(config.find("\"tie_word_embeddings\": false"), 28, "\"tie_word_embeddings\": true ");
  write(path("larger.json"), config);
  done({"init", "larger.json", "larger"});
  const std::string out = diff("model", "larger", 1).out;
  expect_part(out, "config.json: tie_word_embeddings: false in A, true in B\n");
  expect_part(out, "config.json: vocab_size: 4096 in A, 4097 in B\n");
  expect_part(out, "of another shape: model.embed_tokens.weight, fp32 [4096, 16] in A, fp32 [4097, 16] in B\n");
  expect_part(out, "only in A: lm_head.weight, fp32 [4096, 16]\n");
  expect_part(diff("larger", "model", 1).out, "only in B: lm_head.weight");
}

// The experts of transformers' packed layout are those of the hub's.
TEST_F(Diff, OfTheSameInAnotherLayout) {
  const std::string packed = source_path("tests/fixtures/hf/packed");
  done({"export", packed, "hub"});
  expect_part(diff(packed, "hub", 0).out, "65 of 65 tensors are the same");
}

TEST_F(Diff, AConfigAloneIsADifference) {
  copy_model("other");
  std::string config = read(path("other/config.json"));
  config.replace(config.find("1e-05"), 5, "1e-06");
  write(path("other/config.json"), config);
  EXPECT_EQ(diff("model", "other", 1).out,
            "config.json: rms_norm_eps: 1e-05 in A, 1e-06 in B\n16 of 16 tensors are the same, bit for bit\n");
}

TEST_F(Diff, WhatCannotBeReadIsRefused) {
  const auto refused = [&](const std::string& a, const std::string& b, const Args& parts, const Args& more = {}) {
    const Outcome outcome = diff(a, b, 2, more);
    EXPECT_EQ(outcome.out, "");
    expect_one_error(outcome, parts);
  };
  refused("model", "none", {"none"});
  refused("data.jsonl", "model", {"data.jsonl"});
  refused("model", "model", {"--sort"}, {"--sort=size"});
  copy_model("other");
  add_to_head("other", std::numeric_limits<float>::infinity());
  refused("model", "other", {"other/model.safetensors: tensor 'model.embed_tokens.weight' holds NaN or infinity"});
  fs::resize_file(path("other/model.safetensors"), 5000);
  refused("other", "model", {"other/model.safetensors", "the file is too short"});
  write(path("other/config.json"), "[");
  refused("model", "other", {"other/"});
}

}  // namespace
}  // namespace mixtune
