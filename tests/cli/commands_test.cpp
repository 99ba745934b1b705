// The subcommands at work, through the program itself.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "base/json_value.h"
#include "program.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;

// Each test has a folder with a small random model and a data file.
class Commands : public testing::Test {
 protected:
  void SetUp() override {
    make_model(path("model"));
    std::string text;
    for (int i = 0; i < 12; ++i) text += "{\"input\": \"Define: otter\", \"output\": \"an animal that swims\"}\n";
    write(path("data.jsonl"), text);
  }

  fs::path path(const std::string& name) const { return work_.path() / name; }

  Outcome run(const std::vector<std::string>& args) const {
    Outcome outcome = run_mixtune(args, work_.path());
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome;
  }

  std::vector<std::string> train(std::vector<std::string> more) const {
    more.insert(more.begin(), {"train", "--model_name_or_path=model", "--train_file=data.jsonl", "--output_dir=out",
                               "--per_device_train_batch_size=2", "--learning_rate=1e-2", "--max_seq_length=64"});
    return more;
  }

  std::vector<nlohmann::json> metrics() const {
    std::vector<nlohmann::json> records;
    std::istringstream lines(read(path("out/metrics.jsonl")));
    for (std::string line; std::getline(lines, line);) records.push_back(nlohmann::json::parse(line));
    return records;
  }

  TempFolder work_;
};

TEST_F(Commands, VersionAndHelp) {
  EXPECT_TRUE(run({"version"}).out.starts_with("mixtune "));
  EXPECT_EQ(run({"--version"}).out, run({"version"}).out);
  EXPECT_EQ(run({"help"}).out, run({"--help"}).out);
  EXPECT_NE(run({"--help"}).out.find("preprocess"), std::string::npos);
  EXPECT_NE(run({"train", "--help"}).out.find("--lr_scheduler_type"), std::string::npos);
}

TEST_F(Commands, TrainWritesMetricsCheckpointAndLatest) {
  const Outcome outcome = run(train({"--max_steps=4", "--logging_steps=3", "--validation_split_percentage=10"}));
  EXPECT_NE(outcome.out.find("step 1/4"), std::string::npos);
  EXPECT_EQ(outcome.out.find("step 2/4"), std::string::npos);  // thinned
  EXPECT_NE(outcome.out.find("evaluation: lm"), std::string::npos);
  EXPECT_NE(outcome.out.find("\nthe model's operations: median "), std::string::npos);
  const auto records = metrics();
  ASSERT_EQ(records.size(), 5u);  // not thinned, and the evaluation at the end
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(records[i]["step"], i + 1);
    for (const char* field :
         {"loss", "lm_loss", "aux_loss", "grad_norm", "learning_rate", "tokens_per_second", "model_tflops", "mfu"})
      EXPECT_TRUE(records[i][field].is_number_float()) << field;
    EXPECT_GT(records[i]["model_tflops"], 0);
    EXPECT_EQ(records[i]["mfu"], 0);  // a CPU's peak is not known
    EXPECT_GT(records[i]["tokens"], 0);
    EXPECT_NEAR(records[i]["loss"], records[i]["lm_loss"].get<double>() + 0.02 * records[i]["aux_loss"].get<double>(),
                1e-6);
  }
  EXPECT_LT(records[3]["loss"], records[0]["loss"]);
  EXPECT_TRUE(records[4].contains("eval_loss"));
  EXPECT_EQ(read(path("out/latest")), "checkpoint-4\n");
  EXPECT_TRUE(fs::exists(path("out/checkpoint-4/model.safetensors")));
  EXPECT_EQ(read(path("out/checkpoint-4/tokenizer.model")), read(path("model/tokenizer.model")));
  EXPECT_NE(read(path("out/config.resolved.yaml")).find("max_steps: 4\n"), std::string::npos);
  EXPECT_NE(run({"inspect", "out"}).err.find("checkpoint-4"), std::string::npos);
}

// The weights are so large that the first gradients are not finite.
TEST_F(Commands, ARunThatGoesBadStopsAndSavesNothing) {
  std::string weights = read(path("model/model.safetensors"));
  uint64_t header = 0;
  std::memcpy(&header, weights.data(), sizeof(header));
  const float huge = 1e30f;
  for (size_t i = sizeof(header) + header; i + sizeof(huge) <= weights.size(); i += sizeof(huge))
    std::memcpy(weights.data() + i, &huge, sizeof(huge));
  write(path("model/model.safetensors"), weights);
  const Outcome outcome = run_mixtune(train({"--max_steps=3", "--save_steps=1"}), work_.path());
  EXPECT_EQ(outcome.code, 17) << outcome.err;
  EXPECT_NE(outcome.err.find("step 1: training went bad"), std::string::npos) << outcome.err;
  ASSERT_EQ(metrics().size(), 1u);
  EXPECT_TRUE(metrics()[0]["grad_norm"].is_null());
  EXPECT_GT(metrics()[0]["milliseconds"], 0);
  EXPECT_GT(metrics()[0]["tokens_per_second"], 0);
  EXPECT_FALSE(fs::exists(path("out/checkpoint-1")));
  EXPECT_FALSE(fs::exists(path("out/latest")));
}

TEST_F(Commands, SameSeedSameRun) {
  run(train({"--max_steps=3"}));
  const std::string weights = read(path("out/checkpoint-3/model.safetensors"));
  run(train({"--max_steps=3", "--overwrite_output_dir"}));
  EXPECT_EQ(read(path("out/checkpoint-3/model.safetensors")), weights);
}

// The trace is that of the last step, as there are fewer than five.
TEST_F(Commands, ProfileWritesATraceAndChangesNothing) {
  run(train({"--max_steps=3"}));
  const std::string weights = read(path("out/checkpoint-3/model.safetensors"));
  const Outcome outcome = run(train({"--max_steps=3", "--overwrite_output_dir", "--profile"}));
  EXPECT_EQ(read(path("out/checkpoint-3/model.safetensors")), weights);
  EXPECT_NE(outcome.err.find("out/trace.json shows step 3"), std::string::npos) << outcome.err;
  const auto events = nlohmann::json::parse(read(path("out/trace.json")))["traceEvents"];
  ASSERT_GT(events.size(), 10u);
  const double whole = events[0]["dur"];
  EXPECT_EQ(events[0]["name"], "step");
  for (const auto& event : events) {
    EXPECT_EQ(event["ph"], "X");
    EXPECT_GE(event["ts"], events[0]["ts"]);
    EXPECT_LE(event["dur"], whole) << event;
  }
  run(train({"--max_steps=1", "--overwrite_output_dir"}));
  EXPECT_FALSE(fs::exists(path("out/trace.json")));
}

TEST_F(Commands, EvaluateAgreesWithTheRun) {
  run(train({"--max_steps=2", "--validation_file=data.jsonl"}));
  const double in_run = metrics().back()["eval_loss"];
  const Outcome outcome =
      run({"evaluate", "out/checkpoint-2", "--file=data.jsonl", "--max_seq_length=64", "--packing", "--json"});
  const auto result = nlohmann::json::parse(outcome.out);
  EXPECT_NEAR(result["loss"].get<double>(), in_run, 1e-5);
  EXPECT_NEAR(result["perplexity"].get<double>(), std::exp(in_run), 1e-4 * std::exp(in_run));
  EXPECT_GT(result["tokens"], 0);
}

TEST_F(Commands, PreprocessedDataTrainsTheSame) {
  run({"preprocess", "--train_file=data.jsonl", "--tokenizer_name_or_path=model", "--output=tokens.jsonl"});
  run(train({"--max_steps=2"}));
  const auto from_text = metrics();
  run({"train", "--model_name_or_path=model", "--train_file=tokens.jsonl", "--output_dir=out", "--max_steps=2",
       "--per_device_train_batch_size=2", "--learning_rate=1e-2", "--max_seq_length=64", "--overwrite_output_dir"});
  const auto from_tokens = metrics();
  EXPECT_EQ(from_text[1]["loss"], from_tokens[1]["loss"]);
}

TEST_F(Commands, IndexedDataTrainsTheSame) {
  const std::vector<std::string> preprocess = {"preprocess", "--train_file=data.jsonl",
                                               "--tokenizer_name_or_path=model"};
  const auto with = [](std::vector<std::string> arguments, const std::vector<std::string>& more) {
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  };
  run(with(preprocess, {"--output=tokens", "--output_format=indexed"}));
  run(train({"--max_steps=2"}));
  const auto from_text = metrics();
  run({"train", "--model_name_or_path=model", "--train_file=tokens", "--output_dir=out", "--max_steps=2",
       "--per_device_train_batch_size=2", "--learning_rate=1e-2", "--max_seq_length=64", "--overwrite_output_dir"});
  EXPECT_EQ(from_text[1]["loss"], metrics()[1]["loss"]);

  const auto fails = [&](const std::vector<std::string>& more, const std::string& what) {
    const Outcome outcome = run_mixtune(with(preprocess, more), work_.path());
    EXPECT_EQ(outcome.code, 2);
    EXPECT_NE(outcome.err.find(what), std::string::npos) << outcome.err;
  };
  fails({"--output=tokens", "--output_format=indexed"}, "tokens.idx: exists already");
  fails({"--train_file=tokens", "--output=tokens.bin", "--output_format=indexed", "--overwrite"}, "is what this reads");
  std::filesystem::remove(path("tokens.bin"));
  fails({"--train_file=tokens", "--debug=1"}, "'tokens.bin' cannot be opened");
}

TEST_F(Commands, PreprocessNamesTheKeysThatItDoesNotUse) {
  write(path("run.yaml"), "train_file: data.jsonl\nmodel_name_or_path: model\nlearning_rate: 1e-3\nshuffle: false\n");
  const std::string warning = "mixtune: warning: ";
  const Outcome warned = run({"preprocess", "run.yaml", "--packing", "--output=a.jsonl"});
  EXPECT_NE(warned.err.find(warning + "--packing, run.yaml:4: shuffle: no effect"), std::string::npos) << warned.err;
  const Outcome quiet =
      run({"preprocess", "--train_file=data.jsonl", "--model_name_or_path=model", "--output=b.jsonl"});
  EXPECT_EQ(quiet.err.find(warning), std::string::npos) << quiet.err;
  EXPECT_EQ(read(path("a.jsonl")), read(path("b.jsonl")));
}

TEST_F(Commands, PreprocessShowsSamples) {
  const Outcome outcome =
      run({"preprocess", "--train_file=data.jsonl", "--tokenizer_name_or_path=model", "--debug", "1"});
  EXPECT_NE(outcome.out.find("INST"), std::string::npos);
  EXPECT_NE(outcome.out.find("-100"), std::string::npos);
}

const std::string kTrain =
    "\"$0\" train --model_name_or_path=model --train_file=data.jsonl --output_dir=out --max_steps=2 "
    "--max_seq_length=64";
const std::string kNoOutput = "mixtune: error: standard output: cannot be written";

TEST_F(Commands, ARunWithoutRoomForItsOutputTrainsAndThenFails) {
  const Outcome outcome = run_shell(kTrain + " > /dev/full", work_.path());
  EXPECT_EQ(outcome.code, 1);
  EXPECT_NE(outcome.err.find(kNoOutput), std::string::npos) << outcome.err;
  EXPECT_EQ(read(path("out/latest")), "checkpoint-2\n");
}

TEST_F(Commands, AClosedPipeDoesNotEndTheRun) {
  mkfifo(path("go").c_str(), 0600);  // opened by the run's side only after the reader has gone
  const Outcome outcome = run_shell(
      "{ read line < go; " + kTrain + "; echo $? > code; } | { exec <&-; echo > go; }; cat code", work_.path());
  EXPECT_EQ(outcome.out, "1\n");
  EXPECT_NE(outcome.err.find(kNoOutput), std::string::npos) << outcome.err;
  EXPECT_EQ(read(path("out/latest")), "checkpoint-2\n");
}

TEST_F(Commands, AFileThatMayNotGrowIsAnError) {
  const Outcome outcome = run_shell("{ ulimit -f 0; \"$0\" version > file; echo code $?; } 2>&1 | cat", work_.path());
  EXPECT_NE(outcome.out.find(kNoOutput), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("code 1\n"), std::string::npos) << outcome.out;
}

TEST_F(Commands, NoFileTakesThePlaceOfAClosedStream) {
  EXPECT_EQ(run_shell(kTrain + " <&- >&- 2>&-", work_.path()).code, 0);
  EXPECT_EQ(metrics().size(), 2u);
  EXPECT_EQ(read(path("out/checkpoint-2/model.safetensors")).find("mixtune: "), std::string::npos);
  EXPECT_EQ(run_shell("\"$0\" inspect out >&-", work_.path()).code, 0);
}

TEST_F(Commands, GenerateIsDeterministicAndSampledBySeed) {
  const auto ids = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"generate", "model", "--ids=1,5,9", "--max-new-tokens=6"});
    return run(more).out;
  };
  EXPECT_EQ(ids({}), ids({}));
  EXPECT_EQ(ids({"--temperature=1", "--seed=1"}), ids({"--temperature=1", "--seed=1"}));
  EXPECT_NE(ids({"--temperature=1", "--seed=1"}), ids({"--temperature=1", "--seed=2"}));
  EXPECT_EQ(ids({"--temperature=1", "--top-p=1e-9"}), ids({}));  // the likeliest alone
}

TEST_F(Commands, GenerateWritesThePromptsLogits) {
  run({"generate", "model", "--ids=1,5,9", "--max-new-tokens=1", "--logits=logits.safetensors"});
  EXPECT_NE(run({"inspect", "logits.safetensors"}).out.find("[3, 4096]"), std::string::npos);
}

TEST_F(Commands, GenerateStopsAtTheModelsLastPosition) {
  std::istringstream ids(run({"generate", "model", "--ids=1,5,9", "--max-new-tokens=1000"}).out);
  int count = 0;
  for (int id; ids >> id;) ++count;
  EXPECT_LE(count, 125);  // 128 positions
}

TEST_F(Commands, GenerateText) {
  EXPECT_FALSE(run({"generate", "model", "--prompt", "Define: otter", "--chat", "--max-new-tokens=4"}).out.empty());
}

TEST_F(Commands, InitIsTheSameForASeed) {
  run({"init", "model/config.json", "a", "--seed=7"});
  run({"init", "model/config.json", "b", "--seed=7"});
  run({"init", "model/config.json", "c", "--seed=8"});
  EXPECT_EQ(read(path("a/model.safetensors")), read(path("b/model.safetensors")));
  EXPECT_NE(read(path("a/model.safetensors")), read(path("c/model.safetensors")));
  EXPECT_FALSE(fs::exists(path("a/tokenizer.model")));
}

TEST_F(Commands, InitInBf16SaysSoInItsConfig) {
  run({"init", "model/config.json", "half", "--dtype=bf16", "--tokenizer=model"});
  EXPECT_LT(fs::file_size(path("half/model.safetensors")), fs::file_size(path("model/model.safetensors")) * 6 / 10);
  EXPECT_NE(read(path("half/config.json")).find("bfloat16"), std::string::npos);
  for (const auto& entry : fs::directory_iterator(work_.path()))
    EXPECT_FALSE(entry.path().filename().string().starts_with(".")) << entry.path();  // no temporary left
}

TEST_F(Commands, InspectsWhatItIsGiven) {
  EXPECT_NE(run({"inspect", "model"}).out.find("experts"), std::string::npos);
  EXPECT_NE(run({"inspect", "model/model.safetensors"}).out.find("lm_head.weight"), std::string::npos);
  const std::string tokenizer = run({"inspect", "model/tokenizer.model"}).out;
  EXPECT_NE(tokenizer.find("tokenizer: sentencepiece"), std::string::npos);
  EXPECT_NE(tokenizer.find("pieces: 4096\n"), std::string::npos);
  EXPECT_NE(tokenizer.find("special tokens: 0 (<unk>), 1 (<s>), 2 (</s>)\n"), std::string::npos);
  EXPECT_NE(run({"inspect", "data.jsonl", "--tokenizer=model"}).out.find("records: 12"), std::string::npos);
}

TEST_F(Commands, AnOutputInUseNamesTheTwoWaysOut) {
  fs::create_directory(path("out"));
  const int lock = open(path("out/.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_EQ(flock(lock, LOCK_EX), 0);
  const Outcome outcome = run_mixtune(train({"--overwrite_output_dir"}), work_.path());
  close(lock);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_NE(outcome.err.find("another run is using it"), std::string::npos) << outcome.err;
  EXPECT_FALSE(fs::exists(path("out/metrics.jsonl")));
}

}  // namespace
}  // namespace mixtune
