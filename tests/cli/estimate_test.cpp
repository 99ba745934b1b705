// The search of `mixtune estimate`, and the advice of a run that finds no memory.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "base/json_value.h"
#include "program.h"

namespace mixtune {
namespace {

constexpr const char* kMixtral8x7B = R"({
  "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_act": "silu", "hidden_size": 4096,
  "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 32768, "num_attention_heads": 32,
  "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8,
  "output_router_logits": false, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02,
  "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vocab_size": 32000})";

class Estimate : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(work_.path() / "8x7b");
    write(work_.path() / "8x7b/config.json", kMixtral8x7B);
    write(work_.path() / "run.yaml",
          "model_name_or_path: 8x7b\nprecision: bf16\nmax_seq_length: 4096\nper_device_train_batch_size: 8\n");
  }
  Outcome run(std::vector<std::string> args) const { return run_mixtune(std::move(args), work_.path()); }

  // The commands in an output, each as its words.
  static std::vector<std::vector<std::string>> commands(const std::string& out) {
    std::vector<std::vector<std::string>> found;
    std::istringstream lines(out);
    for (std::string line; std::getline(lines, line);) {
      if (!line.starts_with("  mixtune train ")) continue;
      std::istringstream words(line.substr(line.find("train")));
      found.emplace_back(std::istream_iterator<std::string>(words), std::istream_iterator<std::string>());
    }
    return found;
  }

  TempFolder work_;
};

TEST_F(Estimate, FindsWhatFitsAndEachAnswerHolds) {
  const Outcome outcome = run({"estimate", "run.yaml", "--seed=7", "--gpu-memory=79GiB"});
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  EXPECT_NE(outcome.out.find("a GPU of 79.0 GiB: does not fit\n"), std::string::npos) << outcome.out;
  const auto found = commands(outcome.out);
  ASSERT_FALSE(found.empty()) << outcome.out;
  for (std::vector<std::string> command : found) {
    EXPECT_EQ(command[1], "run.yaml");
    command[0] = "estimate";
    command.insert(command.end(), {"--gpu-memory", "79GiB"});
    const Outcome again = run(command);
    EXPECT_EQ(again.code, 0) << again.out;
    EXPECT_NE(again.out.find("a GPU of 79.0 GiB: fits"), std::string::npos) << again.out;
    EXPECT_EQ(again.out.find(", until"), std::string::npos) << again.out;
  }
  EXPECT_NE(outcome.out.find(" --seed 7 "), std::string::npos) << outcome.out;
}

TEST_F(Estimate, SearchesWhereItIsAskedTo) {
  const std::vector<std::string> args = {"estimate", "run.yaml", "--nproc=8", "--expert_model_parallel_size=8",
                                         "--gpu-memory=500GiB"};
  const Outcome plain = run(args);
  EXPECT_EQ(plain.code, 0) << plain.err;
  EXPECT_TRUE(commands(plain.out).empty()) << plain.out;
  std::vector<std::string> with_search = args;
  with_search.push_back("--search");
  const Outcome searched = run(with_search);
  EXPECT_EQ(searched.code, 0) << searched.err;
  EXPECT_TRUE(searched.out.starts_with(plain.out)) << searched.out;
  const auto found = commands(searched.out);
  ASSERT_GE(found.size(), 2u) << searched.out;
  EXPECT_NE(std::ranges::find(found[0], "8"), found[0].end());  // as it is, on the GPUs that were named
}

TEST_F(Estimate, NothingFits) {
  const Outcome outcome = run({"estimate", "run.yaml", "--gpu-memory=2GiB"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_NE(outcome.out.find("nothing that mixtune can set makes it fit"), std::string::npos) << outcome.out;
}

// Expert parallelism whose worst routing does not fit.
TEST_F(Estimate, SaysWhichRoutingFits) {
  const std::vector<std::string> args = {"estimate",
                                         "run.yaml",
                                         "--nproc=8",
                                         "--expert_model_parallel_size=8",
                                         "--per_device_train_batch_size=4",
                                         "--recompute=full",
                                         "--gpu-memory=122GiB"};
  const Outcome outcome = run(args);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(std::regex_search(
      outcome.out, std::regex("fits, until routing sends a rank more than [123]\\.\\d times its even share of tokens")))
      << outcome.out;
}

// The model needs more memory than any machine has; the message comes before weights are read.
TEST_F(Estimate, OutOfMemoryNeverAdvisesWhatIsSetAlready) {
  make_model(work_.path() / "model");
  auto shape = nlohmann::json::parse(kMixtral8x7B);
  shape["intermediate_size"] = 14336 * 64;
  write(work_.path() / "model/config.json", shape.dump());
  write(work_.path() / "data.jsonl", "{\"text\": \"one two three\"}\n");
  const Outcome outcome = run({"train", "--model_name_or_path=model", "--train_file=data.jsonl", "--output_dir=out",
                               "--device=cpu", "--recompute=full"});
  EXPECT_EQ(outcome.code, 2) << outcome.err;
  EXPECT_TRUE(outcome.err.starts_with("mixtune: error: out of memory: weights (")) << outcome.err;
  EXPECT_NE(outcome.err.find("; use a machine with more memory\n"), std::string::npos) << outcome.err;
  EXPECT_FALSE(std::filesystem::exists(work_.path() / "out"));
}

}  // namespace
}  // namespace mixtune
