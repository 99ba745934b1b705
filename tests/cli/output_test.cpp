// The files that commands write, and those they never write over, through the program itself.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "base/json_value.h"
#include "program.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;
using Args = std::vector<std::string>;

const std::string kPrecious = "# mine\nseed: 7\n";

// Each test has a folder with a small random model, data, and a file of the user's in `out`.
class OutputFiles : public testing::Test {
 protected:
  void SetUp() override {
    make_model(path("model"));
    std::string text;
    for (int i = 0; i < 4; ++i) text += "{\"input\": \"Define: otter\", \"output\": \"an animal that swims\"}\n";
    write(path("data.jsonl"), text);
    fs::create_directory(path("out"));
  }

  fs::path path(const std::string& name) const { return work_.path() / name; }

  static Args train(Args more) {
    more.insert(more.begin(), "train");
    for (const char* flag : {"--model_name_or_path=model", "--train_file=data.jsonl", "--output_dir=out",
                             "--max_steps=1", "--max_seq_length=64"})
      more.emplace_back(flag);
    return more;
  }

  // Expects exit code 2 and one line with these parts, and that nothing is changed.
  void expect_refused(const Args& args, const Args& parts) const {
    const auto before = snapshot(work_.path());
    const Outcome outcome = run_mixtune(args, work_.path());
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    EXPECT_TRUE(outcome.err.starts_with("mixtune: error: ")) << outcome.err;
    EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1) << outcome.err;
    for (const std::string& part : parts) EXPECT_NE(outcome.err.find(part), outcome.err.npos) << outcome.err;
    EXPECT_TRUE(snapshot(work_.path()) == before);
  }

  void expect_done(const Args& args) const {
    const Outcome outcome = run_mixtune(args, work_.path());
    EXPECT_EQ(outcome.code, 0) << outcome.err;
  }

  TempFolder work_;
};

TEST_F(OutputFiles, TrainReplacesNoFileUnlessAsked) {
  write(path("out/config.resolved.yaml"), kPrecious);
  expect_refused(train({}), {"out: holds", "(config.resolved.yaml)", "overwrite_output_dir: true"});
  expect_done(train({"--overwrite_output_dir"}));
  EXPECT_NE(read(path("out/config.resolved.yaml")).find("seed: 42\n"), std::string::npos);
}

TEST_F(OutputFiles, TrainWritesThroughNoLink) {
  write(path("precious"), kPrecious);
  for (const char* name : {"out/config.resolved.yaml", "out/metrics.jsonl", "out/latest", "out/trace.json"})
    fs::create_symlink(path("precious"), path(name));
  expect_refused(train({}), {"overwrite_output_dir"});
  expect_done(train({"--overwrite_output_dir", "--profile"}));
  EXPECT_EQ(read(path("precious")), kPrecious);
  for (const char* name : {"out/config.resolved.yaml", "out/metrics.jsonl", "out/latest", "out/trace.json"})
    EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(path(name)))) << name;
  for (const auto& entry : fs::directory_iterator(path("out")))
    EXPECT_EQ(entry.path().filename().string().find(".tmp-"), std::string::npos) << entry.path();
}

TEST_F(OutputFiles, TheConfigIsAnInput) {
  write(path("out/config.resolved.yaml"), kPrecious);
  expect_refused(train({"out/config.resolved.yaml", "--overwrite_output_dir"}),
                 {"the run reads out/config.resolved.yaml, which it would replace"});
  write(path("out/run.yaml"), kPrecious);
  fs::remove(path("out/config.resolved.yaml"));
  expect_done(train({"out/run.yaml"}));
  EXPECT_EQ(read(path("out/run.yaml")), kPrecious);
}

TEST_F(OutputFiles, PreprocessWritesNeitherThroughALinkNorOverItsInput) {
  const Args preprocess = {"preprocess", "--train_file=data.jsonl", "--tokenizer_name_or_path=model", "--overwrite"};
  const auto to = [&](const std::string& output) {
    Args args = preprocess;
    args.push_back("--output=" + output);
    return args;
  };
  fs::create_symlink("nowhere", path("dangling"));
  write(path("precious"), kPrecious);
  fs::create_symlink("precious", path("link"));
  for (const std::string name : {"dangling", "link"}) expect_refused(to(name), {name, "is a link"});
  expect_refused(to("./data.jsonl"), {"--output", "'./data.jsonl' is what this reads"});
  expect_done(to("precious"));
  EXPECT_NE(read(path("precious")), kPrecious);
}

TEST_F(OutputFiles, GenerateWritesThroughNoLink) {
  fs::create_symlink("nowhere", path("logits"));
  expect_refused({"generate", "model", "--ids=1,5", "--max-new-tokens=1", "--logits=logits"}, {"logits", "is a link"});
}

// The weights are so large that the scores of attention overflow.
TEST_F(OutputFiles, EvaluateTellsALossThatIsNotFinite) {
  std::string weights = read(path("model/model.safetensors"));
  uint64_t header = 0;
  std::memcpy(&header, weights.data(), sizeof(header));
  const float large = 1e12f;
  for (size_t i = sizeof(header) + header; i + sizeof(large) <= weights.size(); i += sizeof(large))
    std::memcpy(weights.data() + i, &large, sizeof(large));
  write(path("model/model.safetensors"), weights);
  std::vector<std::vector<std::string>> layouts = {{}};
  if (!on_gpus() || promised_gpus() > 1) layouts.push_back({"--nproc=2", "--expert_model_parallel_size=2"});
  for (std::vector<std::string> args : layouts) {
    args.insert(args.begin(), {"evaluate", "model", "--file=data.jsonl", "--max_seq_length=64", "--json"});
    const Outcome outcome = run_mixtune(args, work_.path());
    EXPECT_EQ(outcome.code, 17) << outcome.err;
    EXPECT_TRUE(nlohmann::json::parse(outcome.out)["loss"].is_null()) << outcome.out;
    EXPECT_NE(outcome.err.find("data.jsonl: the evaluation went bad: loss "), std::string::npos) << outcome.err;
    EXPECT_EQ(outcome.err.find("error"), outcome.err.rfind("error")) << outcome.err;
  }
}

}  // namespace
}  // namespace mixtune
