// Users' mistakes, through the program itself: one clear line, the right exit code, soon, and nothing written.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "program.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;

struct BadInput {
  std::string name;
  std::vector<std::string> args;       // MODEL: the folder of a good model
  std::vector<std::string> fragments;  // parts of the line on standard error
  std::function<void(const fs::path&)> prepare = [](const fs::path&) {
  };
  bool reads_data = false;  // the line may follow others on what was read
  int code = 2;
};

void PrintTo(const BadInput& bad, std::ostream* out) {
  *out << bad.name;
}

class BadInputTest : public testing::TestWithParam<BadInput> {
 protected:
  static void SetUpTestSuite() {
    model_ = std::make_unique<TempFolder>();
    make_model(model_->path() / "model");
  }
  static void TearDownTestSuite() { model_.reset(); }
  static fs::path model() { return model_->path() / "model"; }

  // Runs it in a folder of its own, which it must leave as it was.
  static Outcome refuse(const BadInput& bad, const std::vector<std::string>& args) {
    const TempFolder work;
    write(work.path() / "good.jsonl", "{\"text\": \"one two three\"}\n{\"text\": \"four five\"}\n");
    fs::create_directory_symlink(model(), work.path() / "model");
    bad.prepare(work.path());
    const auto before = snapshot(work.path());
    Outcome outcome = run_mixtune(args, work.path());
    EXPECT_EQ(outcome.code, bad.code) << outcome.err;
    EXPECT_FALSE(outcome.err.empty());
    EXPECT_EQ(snapshot(work.path()), before);
    return outcome;
  }

 private:
  static inline std::unique_ptr<TempFolder> model_;
};

// Errors of the device, and those that are not found before output_dir is made.
bool only_a_run_can_tell(const BadInput& bad) {
  return bad.name == "NoGpu" || bad.name == "OutputInKernelSpace";
}

TEST_P(BadInputTest, OneClearLine) {
  const BadInput& bad = GetParam();
  const Outcome outcome = refuse(bad, bad.args);
  const std::vector<std::string> lines = lines_of(outcome.err);
  ASSERT_FALSE(lines.empty());
  EXPECT_TRUE(lines.back().starts_with("mixtune: error: ")) << outcome.err;
  if (!bad.reads_data) {
    EXPECT_EQ(lines.size(), 1u) << outcome.err;
  }
  for (size_t i = 0; i + 1 < lines.size(); ++i) EXPECT_EQ(lines[i].find("error"), std::string::npos) << outcome.err;
  for (const std::string& fragment : bad.fragments)
    EXPECT_NE(lines.back().find(fragment), std::string::npos) << "no '" << fragment << "' in: " << lines.back();
  EXPECT_LT(lines.back().size(), 600u);
  if (bad.args.empty() || bad.args.front() != "train" || only_a_run_can_tell(bad)) return;
  std::vector<std::string> dry = bad.args;
  dry.insert(dry.begin() + 1, "--dry-run");
  EXPECT_EQ(refuse(bad, dry).err, outcome.err);
}

std::string case_name(const testing::TestParamInfo<BadInput>& info) {
  return info.param.name;
}

// A training run of one step with a good model and good data, and then `more`.
std::vector<std::string> train(const std::vector<std::string>& more) {
  std::vector<std::string> args = {"train", "--max_steps=1"};
  const auto given = [&](const char* flag) {
    return std::ranges::any_of(more, [&](const std::string& arg) { return arg.starts_with(flag); });
  };
  if (!given("--model_name_or_path")) args.push_back("--model_name_or_path=model");
  if (!given("--train_file")) args.push_back("--train_file=good.jsonl");
  if (!given("--output_dir")) args.push_back("--output_dir=out");
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

// Puts `content` into a file of the work folder.
std::function<void(const fs::path&)> file(const std::string& name, const std::string& content) {
  return [=](const fs::path& work) {
    write(work / name, content);
  };
}

BadInput yaml(const std::string& name, const std::string& content, const std::vector<std::string>& fragments) {
  return {name, {"train", "run.yaml"}, fragments, file("run.yaml", content)};
}

std::vector<BadInput> config_cases() {
  const std::string rest = "model_name_or_path: model\ntrain_file: good.jsonl\noutput_dir: out\n";
  std::string laughs = "a: &a [x, x]\n";
  for (char c = 'b'; c < 'j'; ++c) laughs += fmt::format("{}: &{} [*{}, *{}, *{}]\n", c, c, c - 1, c - 1, c - 1);
  return {
      yaml("UnknownKey", rest + "learing_rate: 1e-4\n", {"run.yaml:4", "'learing_rate'", "'learning_rate'"}),
      yaml("RepeatedKey", rest + "seed: 1\nseed: 2\n", {"run.yaml:5", "'seed'", "line 4"}),
      yaml("MistypedValue", rest + "learning_rate: fast\n", {"run.yaml:4: learning_rate", "'fast'", "number"}),
      yaml("NaN", rest + "learning_rate: .nan\n", {"run.yaml:4: learning_rate", ".nan"}),
      yaml("AbsurdNumber", rest + "learning_rate: 1e30\n", {"run.yaml:4: learning_rate", "out of range"}),
      yaml("NegativeBatch", rest + "per_device_train_batch_size: -1\n", {"run.yaml:4: per_device_train_batch_size"}),
      yaml("BadYaml", rest + "seed: ]\n", {"run.yaml:4", "bad YAML"}),
      yaml("ExplosiveYaml", laughs, {"run.yaml:1", "anchor"}),
      yaml("Anchor", rest + "seed: &a 1\n", {"run.yaml:4", "anchor"}),
      yaml("Nesting", "training:\n  seed: 1\n", {"run.yaml:", "nested"}),
      yaml("DeepNesting", "train_file: " + std::string(100000, '['), {"run.yaml:1", "nested"}),
      yaml("NotUtf8", rest + "seed: \xff\n", {"run.yaml:4", "UTF-8"}),
      yaml("Empty", "", {"run.yaml", "empty"}),
      yaml("TooLarge", std::string(2 << 20, '#'), {"run.yaml", "1 MiB"}),
      yaml("MissingKey", "output_dir: out\ntrain_file: good.jsonl\n", {"model_name_or_path", "required"}),
      yaml("TwoValidations", rest + "validation_file: good.jsonl\nvalidation_split_percentage: 10\n",
           {"run.yaml:5: validation_split_percentage", "keep one"}),
      yaml("NothingToEvaluateOn", rest + "eval_steps: 5\n", {"run.yaml:4: eval_steps", "no validation data"}),
      yaml("NoGpu", rest + "device: cuda\n", {"run.yaml:4: device", "CUDA", "cpu"}),
      yaml("Bf16OnTheCpu", rest + "device: cpu\nprecision: bf16\n", {"run.yaml:5: precision", "needs a GPU", "fp32"}),
      yaml("NoMastersInFp32", rest + "master_weights: none\n", {"run.yaml:4: master_weights", "precision: bf16"}),
      yaml("Bf16GradientsInFp32", rest + "gradient_dtype: bf16\n", {"run.yaml:4: gradient_dtype", "precision: bf16"}),
      yaml("Bf16GradientsThatAccumulate",
           rest + "precision: bf16\ngradient_dtype: bf16\ngradient_accumulation_steps: 2\n",
           {"run.yaml:5: gradient_dtype", "micro-batches"}),
      yaml("BadSize", rest + "max_shard_size: 5XB\n", {"run.yaml:4: max_shard_size", "5XB"}),
      yaml("SizeWithoutUnit", rest + "max_shard_size: 5\n", {"run.yaml:4: max_shard_size", "'5' has no unit", "5GiB"}),
      yaml("NoCheckpointToResume", rest + "resume_from_checkpoint: x\n", {"x: is no checkpoint", "auto"}),
      {"MissingConfig", {"train", "none.yaml"}, {"none.yaml", "No such file"}},
      {"FolderAsConfig", {"train", "model"}, {"model", "is a folder"}},
      {"DeviceAsConfig", {"train", "/dev/zero"}, {"/dev/zero", "not a regular file"}},
  };
}

std::vector<BadInput> flag_cases() {
  return {
      {"UnknownCommand", {"trian"}, {"'trian'", "'train'"}},
      {"UnknownFlag", train({"--learing_rate=1"}), {"'--learing_rate'", "'--learning_rate'"}},
      {"RepeatedFlag", train({"--seed=1", "--seed=2"}), {"--seed", "twice"}},
      {"FlagWithoutValue", train({"--seed"}), {"--seed", "needs a value"}},
      {"MistypedFlag", train({"--max_grad_norm=a"}), {"--max_grad_norm", "'a'"}},
      {"ControlCharacters", train({"--seed=\x1b[31m\n1"}), {"--seed", "\\x1b[31m\\x0a1"}},
      {"EmptyValue", train({"--train_file="}), {"--train_file", "needs a value"}},
      {"BadFlagPointsAtItsHelp", {"generate", "model", "--ids=1", "--top-p=x"}, {"'mixtune generate --help'"}},
      {"StrayWord", {"train", "a.yaml", "b.yaml"}, {"'b.yaml'"}},
  };
}

// Replaces the work folder's link to the good model with a copy that may be damaged.
fs::path copy_model(const fs::path& work) {
  const fs::path good = fs::read_symlink(work / "model");
  fs::remove(work / "model");
  fs::copy(good, work / "model", fs::copy_options::recursive);
  return work / "model";
}

BadInput model(const std::string& name, std::function<void(const fs::path&)> damage,
               const std::vector<std::string>& fragments) {
  return {name, train({"--max_seq_length=64"}), fragments, [=](const fs::path& work) {
            damage(copy_model(work));
          }};
}

BadInput model_config(const std::string& name, const std::string& from, const std::string& to,
                      const std::vector<std::string>& fragments) {
  return model(
      name,
      [=](const fs::path& folder) {
        std::string text = read(folder / "config.json");
        const size_t at = text.find(from);
        if (at == std::string::npos) throw std::runtime_error("no '" + from + "' in config.json");
        write(folder / "config.json", text.replace(at, from.size(), to));
      },
      fragments);
}

// A model.safetensors with this header, and 64 bytes of tensors.
BadInput header(const std::string& name, const std::string& json, const std::vector<std::string>& fragments) {
  std::string length(8, '\0');
  for (size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(json.size() >> (8 * i));
  return model(
      name, [=](const fs::path& folder) { write(folder / "model.safetensors", length + json + std::string(64, '\0')); },
      fragments);
}

std::string tensor(const std::string& name, const std::string& shape, int begin, int end) {
  return fmt::format(R"("{}": {{"dtype": "F32", "shape": [{}], "data_offsets": [{}, {}]}})", name, shape, begin, end);
}

std::string object(const std::vector<std::string>& members) {
  return fmt::format("{{{}}}", fmt::join(members, ","));
}

std::vector<BadInput> model_cases() {
  const auto truncate = [](const fs::path& folder) {
    fs::resize_file(folder / "model.safetensors", fs::file_size(folder / "model.safetensors") / 2);
  };
  const auto index = [](const std::string& entry) {
    return [=](const fs::path& folder) {
      fs::rename(folder / "model.safetensors", folder.parent_path() / "outside.safetensors");
      write(folder / "model.safetensors.index.json",
            fmt::format(R"({{"metadata": {{}}, "weight_map": {{"lm_head.weight": "{}"}}}})", entry));
    };
  };
  const std::string file_name = "model.safetensors";
  return {
      {"MissingModel", train({"--model_name_or_path=none"}), {"--model_name_or_path", "'none'"}},
      {"NameOnTheHub", train({"--model_name_or_path=mistralai/Mixtral-8x7B-v0.1"}), {"hf download"}},
      {"FileAsModel", train({"--model_name_or_path=good.jsonl"}), {"'good.jsonl'", "not a folder"}},
      {"FolderWithoutConfig", train({"--model_name_or_path=."}), {"no config.json"}},
      model("ConfigIsNotJson", [](const fs::path& f) { write(f / "config.json", "{\"a\": "); }, {"config.json"}),
      model("ConfigIsDeep", [](const fs::path& f) { write(f / "config.json", std::string(1 << 20, '[')); },
            {"config.json"}),
      model_config("OtherArchitecture", "\"model_type\": \"mixtral\"", "\"model_type\": \"llama\"",
                   {"config.json", "model_type"}),
      model_config("UnknownMaths", "\"rope_theta\"", "\"attention_dropout\": 0.1, \"rope_theta\"",
                   {"config.json", "attention_dropout"}),
      model_config("HeadsDoNotDivide", "\"num_key_value_heads\": 1", "\"num_key_value_heads\": 3", {"config.json"}),
      model_config("MoreChoicesThanExperts", "\"num_experts_per_tok\": 1", "\"num_experts_per_tok\": 9",
                   {"config.json", "num_experts_per_tok"}),
      model_config("HugeShape", "\"hidden_size\": 16", "\"hidden_size\": 9223372036854775807", {"config.json"}),
      model_config("WrongShape", "\"intermediate_size\": 16", "\"intermediate_size\": 24", {"shape", "[24, 16]"}),
      model_config("MissingTensors", "\"num_hidden_layers\": 1", "\"num_hidden_layers\": 2", {"model.layers.1."}),
      model("Truncated", truncate, {file_name}),
      model("NoWeights", [](const fs::path& f) { fs::remove(f / "model.safetensors"); }, {"model"}),
      model("EmptyWeights", [](const fs::path& f) { write(f / "model.safetensors", ""); }, {file_name}),
      model("HeaderLongerThanFile", [](const fs::path& f) { write(f / "model.safetensors", std::string(64, '\x7f')); },
            {file_name}),
      header("Overlap", object({tensor("a", "8", 0, 32), tensor("b", "12", 16, 64)}), {file_name}),
      header("Oversized", object({tensor("a", "1024", 0, 4096)}), {file_name}),
      header("ShapeOverflows", object({tensor("a", "4294967296, 4294967296", 0, 64)}), {file_name}),
      header("DuplicateName", object({tensor("a", "8", 0, 32), tensor("a", "8", 32, 64)}), {file_name}),
      header("DeepHeader", std::string(1 << 20, '['), {file_name}),
      model("IndexLeavesTheFolder", index("../outside.safetensors"), {"index.json"}),
      model("IndexIsAbsolute", index("/etc/passwd"), {"index.json"}),
      model("IndexNamesNoFile", index("model-00001-of-00002.safetensors"), {"model-00001-of-00002.safetensors"}),
      model("CorruptTokenizerJson", [](const fs::path& f) { fs::rename(f / "tokenizer.model", f / "tokenizer.json"); },
            {"tokenizer.json", "NUL byte"}),
      model("CorruptTokenizer", [](const fs::path& f) { write(f / "tokenizer.model", "rubbish"); },
            {"tokenizer.model"}),
  };
}

BadInput data(const std::string& name, const std::string& content, const std::vector<std::string>& fragments,
              const std::vector<std::string>& more = {}) {
  std::vector<std::string> args = {"--train_file=bad.jsonl"};
  args.insert(args.end(), more.begin(), more.end());
  return {name, train(args), fragments, file("bad.jsonl", content), true};
}

std::vector<BadInput> data_cases() {
  return {
      {"MissingData", train({"--train_file=none.jsonl"}), {"--train_file", "none.jsonl"}},
      {"FolderAsData", train({"--train_file=model"}), {"--train_file", "folder"}},
      {"DeviceAsData", train({"--train_file=/dev/zero"}), {"/dev/zero", "not a regular file"}},
      {"PipeAsData",
       train({"--train_file=pipe"}),
       {"pipe", "not a regular file"},
       [](const fs::path& work) {
         ASSERT_EQ(mkfifo((work / "pipe").c_str(), 0600), 0);
       }},
      data("EmptyData", "", {"bad.jsonl"}),
      data("BadJson", "{\"text\": \"a b\"}\n{\"text\": \n", {"bad.jsonl:2"}),
      data("NotAnObject", "{\"text\": \"a b\"}\n[1]\n", {"bad.jsonl:2"}),
      data("OtherFormatLater", "{\"text\": \"a b\"}\n\n{\"input_ids\": [1, 2]}\n", {"bad.jsonl:3"}),
      data("NestedData", "{\"text\": " + std::string(1 << 20, '[') + "\n", {"bad.jsonl:1"}),
      data("DataIsNotUtf8", "{\"text\": \"a b\"}\n{\"text\": \"\xff\"}\n", {"bad.jsonl:2", "UTF-8"}),
      data("IdOutOfRange", "{\"input_ids\": [1, 2]}\n{\"input_ids\": [1, 4096]}\n", {"bad.jsonl:2", "4096"}),
      data("NegativeId", "{\"input_ids\": [1, -5]}\n", {"bad.jsonl:1", "-5"}),
      data("NoTarget", "{\"input_ids\": [1, 2, 3], \"labels\": [-100, -100, -100]}\n", {"target"}),
      data("LabelsOfOtherLength", "{\"input_ids\": [1, 2, 3], \"labels\": [1]}\n", {"bad.jsonl:1", "labels"}),
      data("MaskOfOtherLength", "{\"input_ids\": [1, 2], \"attention_mask\": [1]}\n",
           {"bad.jsonl:1", "1 entries for 2"}),
      data("UnknownRole", "{\"messages\": [{\"role\": \"robot\", \"content\": \"x\"}]}\n", {"bad.jsonl:1", "robot"}),
      data("UserHasTheLastWord", "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n", {"bad.jsonl:1"}),
      data("LongDocument", "{\"input_ids\": [1, 2, 3, 4, 5]}\n", {"bad.jsonl:1", "max_seq_length"},
           {"--long_documents=error", "--max_seq_length=4"}),
      data("NothingToHoldOut", "{\"input_ids\": [1, 2, 3, 4, 5]}\n", {"validation_split_percentage"},
           {"--validation_split_percentage=50", "--data_cache=off"}),
  };
}

std::vector<BadInput> output_cases() {
  const auto earlier_run = [](const fs::path& work) {
    fs::create_directories(work / "out/checkpoint-5");
    write(work / "out/metrics.jsonl", "{\"step\": 1}\n");
    write(work / "out/latest", "checkpoint-5\n");
  };
  return {
      {"FileAsOutput", train({"--output_dir=good.jsonl"}), {"good.jsonl", "file"}},
      {"OutputBelowAFile", train({"--output_dir=good.jsonl/out"}), {"good.jsonl", "file"}},
      {"OutputInTheModel", train({"--output_dir=model/out"}), {"model/out", "which the run reads"}},
      {"OutputIsFull", train({"--max_seq_length=64"}), {"out", "overwrite_output_dir"}, earlier_run},
      {"OutputInKernelSpace", train({"--output_dir=/proc/mixtune"}), {"/proc/mixtune"}, [](const fs::path&) {}, true},
      {"PreprocessOutputExists",
       {"preprocess", "--train_file=good.jsonl", "--tokenizer_name_or_path=model", "--output=good.jsonl"},
       {"good.jsonl", "exists"}},
      {"PreprocessOutputNowhere",
       {"preprocess", "--train_file=good.jsonl", "--tokenizer_name_or_path=model", "--output=none/x.jsonl"},
       {"none"}},
      {"InitOutputExists", {"init", "model/config.json", "model"}, {"model", "exists"}},
      {"InitBelowAFile", {"init", "model/config.json", "good.jsonl/new"}, {"good.jsonl"}},
  };
}

std::vector<BadInput> other_command_cases() {
  return {
      {"PreprocessWithoutOutput", {"preprocess", "--train_file=good.jsonl"}, {"--output"}},
      {"PreprocessWithoutTokenizer",
       {"preprocess", "--train_file=good.jsonl", "--output=x.jsonl"},
       {"tokenizer_name_or_path", "required"}},
      {"PreprocessUnknownFlag", {"preprocess", "--zzzzzzzz=1"}, {"'mixtune preprocess --help'"}},
      {"PreprocessWithoutData", {"preprocess", "--output=x.jsonl"}, {"train_file", "required"}},
      {"InitWithoutShape", {"init", "none.json", "new"}, {"none.json"}},
      {"InitOfOtherFile", {"init", "good.jsonl", "new"}, {"good.jsonl"}},
      {"InitBadDtype", {"init", "model/config.json", "new", "--dtype=fp8"}, {"--dtype", "fp8"}},
      {"InitBadTokenizer", {"init", "model/config.json", "new/model", "--tokenizer=."}, {"tokenizer"}},
      {"InspectNothing", {"inspect", "none"}, {"none", "does not exist"}},
      {"InspectEmptyPath", {"inspect", ""}, {"PATH", "is empty"}},
      {"InspectEmptyFolder",
       {"inspect", "empty"},
       {"empty", "config.json"},
       [](const fs::path& work) {
         fs::create_directory(work / "empty");
       }},
      {"InspectDevice", {"inspect", "/dev/zero"}, {"/dev/zero"}},
      {"InspectHostileLatest",
       {"inspect", "run"},
       {"latest", "does not name a checkpoint"},
       [](const fs::path& work) {
         fs::create_directory(work / "run");
         write(work / "run/latest", "../model\n");
       }},
      {"InspectRubbish", {"inspect", "x.safetensors"}, {"x.safetensors"}, file("x.safetensors", "rubbish")},
      {"GenerateWithoutPrompt", {"generate", "model"}, {"--prompt"}},
      {"GenerateBoth", {"generate", "model", "--prompt=a", "--ids=1"}, {"--prompt", "--ids"}},
      {"GenerateNothing", {"generate", "model", "--ids=,"}, {"--ids", "no id"}},
      {"GenerateTwoSources", {"generate", "model", "--prompt=a", "--prompts=p"}, {"--prompt", "--prompts"}},
      {"GenerateBatchOfOne", {"generate", "model", "--prompt=a", "--batch=2"}, {"--batch", "without --prompts"}},
      {"GenerateBatchOfNone", {"generate", "model", "--prompts=p", "--batch=0"}, {"--batch"}},
      {"GenerateLogitsOfMany", {"generate", "model", "--prompts=p", "--logits=l"}, {"--logits", "no effect"}},
      {"GenerateLogitsOfTalk", {"generate", "model", "--chat", "--logits=l"}, {"--logits", "no effect"}},
      {"GeneratePromptsMissing", {"generate", "model", "--prompts=p"}, {"p", "cannot be opened"}},
      {"GeneratePromptsFault",
       {"generate", "model", "--prompts=p"},
       {"p:2", "'prompt' is missing", "{\"prompt\": \"TEXT\"}"},
       file("p", "\"one\"\n{\"text\": \"two\"}\n")},
      {"GeneratePromptsTooLong",
       {"generate", "model", "--prompts=p"},
       {"p:2", "positions", "shorten"},
       file("p", "\"one\"\n\"" + std::string(2000, 'x') + "\"\n")},
      {"GenerateBadIds", {"generate", "model", "--ids=1,x"}, {"--ids", "list of token ids"}},
      {"GenerateIdOutOfRange", {"generate", "model", "--ids=1,4096"}, {"4096", "vocabulary"}},
      {"GenerateTooLong", {"generate", "model", "--prompt=" + std::string(2000, 'x')}, {"positions", "shorten"}},
      {"GenerateColderThanCold", {"generate", "model", "--ids=1", "--temperature=-1"}, {"--temperature"}},
      {"GenerateNaN", {"generate", "model", "--ids=1", "--temperature=nan"}, {"--temperature"}},
      {"GenerateTopP", {"generate", "model", "--ids=1", "--top-p=1.5"}, {"--top-p"}},
      {"GenerateTopPAlone", {"generate", "model", "--ids=1", "--top-p=0.9"}, {"--top-p", "without --temperature"}},
      {"GenerateChatOfIds", {"generate", "model", "--ids=1", "--chat"}, {"--chat", "no effect with --ids"}},
      {"GenerateTokenizerOfIds", {"generate", "model", "--ids=1", "--tokenizer=model"}, {"--tokenizer", "no effect"}},
      {"GenerateLogitsExist", {"generate", "model", "--ids=1", "--logits=good.jsonl"}, {"good.jsonl", "exists"}},
      {"GenerateWithoutModel", {"generate", "--ids=1"}, {"MODEL", "required"}},
      {"EvaluateWithoutFile", {"evaluate", "model"}, {"--file", "required"}},
      {"EvaluateMissingFile", {"evaluate", "model", "--file=none"}, {"error: --file: 'none'"}},
      {"EvaluateMissingModel", {"evaluate", "none", "--file=good.jsonl"}, {"error: MODEL: ", "'none'"}},
  };
}

INSTANTIATE_TEST_SUITE_P(Config, BadInputTest, testing::ValuesIn(config_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Flags, BadInputTest, testing::ValuesIn(flag_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Model, BadInputTest, testing::ValuesIn(model_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Data, BadInputTest, testing::ValuesIn(data_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Output, BadInputTest, testing::ValuesIn(output_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Other, BadInputTest, testing::ValuesIn(other_command_cases()), case_name);

}  // namespace
}  // namespace mixtune
