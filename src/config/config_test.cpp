#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <fstream>
#include <string>

#include "base/error.h"
#include "base/temp_folder.h"
#include "config/keys.h"
#include "config/load.h"
#include "config/testing.h"

namespace mixtune {
namespace {

std::string flag_error(const Overrides& overrides) {
  try {
    load_config(std::nullopt, overrides);
    return "";
  } catch (const UserError& error) {
    return error.what();
  }
}

TEST(Config, ReadsEveryKindOfValue) {
  const Config config = parse_config(
      "# a comment\n"
      "model_name_or_path: models/tiny\n"
      "train_file: [a.jsonl, \"b c.jsonl\"]\n"
      "packing: yes\n"
      "shuffle: False\n"
      "learning_rate: 5e-5\n"
      "adam_epsilon: '1E-7'\n"
      "max_steps: 1_000\n"
      "save_steps: 2e2\n"
      "lr_scheduler_type: cosine\n"
      "router_aux_loss_coef: 0.02\n"
      "seed: 4294967295\n",
      "run.yaml");
  EXPECT_EQ(config.model.model_name_or_path, "models/tiny");
  EXPECT_EQ(config.data.train_file, (std::vector<std::string>{"a.jsonl", "b c.jsonl"}));
  EXPECT_TRUE(config.data.packing);
  EXPECT_FALSE(config.data.shuffle);
  EXPECT_EQ(config.optimizer.learning_rate, 5e-5);
  EXPECT_EQ(config.optimizer.adam_epsilon, 1e-7);
  EXPECT_EQ(config.batch.max_steps, 1000);
  EXPECT_EQ(config.output.save_steps, 200);
  EXPECT_EQ(config.optimizer.lr_scheduler_type, Schedule::kCosine);
  EXPECT_EQ(config.router.router_aux_loss_coef, 0.02);
  EXPECT_EQ(config.machine.seed, 4294967295u);
}

TEST(Config, OneFileWithoutListAndNulls) {
  const Config config = parse_config(
      "train_file: a.jsonl\nrouter_aux_loss_coef: null\ntokenizer_name_or_path: ~\nsave_total_limit:\n", "run.yaml");
  EXPECT_EQ(config.data.train_file, std::vector<std::string>{"a.jsonl"});
  EXPECT_FALSE(config.router.router_aux_loss_coef.has_value());
  EXPECT_EQ(config.model.tokenizer_name_or_path, "");
  EXPECT_EQ(config.output.save_total_limit, 0);
}

TEST(Config, FlagsOverrideTheFile) {
  const Config config = parse_config("seed: 1\nmax_steps: 5\ntrain_file: [x]\n", "run.yaml",
                                     {{"seed", "7"}, {"train_file", "a"}, {"train_file", "b"}});
  EXPECT_EQ(config.machine.seed, 7u);
  EXPECT_EQ(config.batch.max_steps, 5);
  EXPECT_EQ(config.data.train_file, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(config.where("seed"), "--seed");
  EXPECT_EQ(config.where("max_steps"), "run.yaml:2: max_steps");
  EXPECT_EQ(config.where("packing"), "packing");
}

TEST(Config, PrintedConfigReadsBack) {
  const Config config = parse_config(
      "output_dir: \"a \\\"b\\\": #c\"\ntrain_file: ['- x', \"\xc3\xa9\"]\nlearning_rate: 1.2345678901234567e-5\n"
      "router_aux_loss_coef: 0.1\nwarmup_steps: 0.03\nlong_documents: error\n",
      "run.yaml");
  const std::string printed = print_config(config);
  const Config again = parse_config(printed, "printed.yaml");
  EXPECT_EQ(print_config(again), printed);
  EXPECT_EQ(again.output.output_dir, "a \"b\": #c");
  EXPECT_EQ(again.optimizer.learning_rate, 1.2345678901234567e-5);
  EXPECT_EQ(again.data.long_documents, LongDocuments::kError);
}

TEST(Config, DefaultsReadBack) {
  const std::string printed = print_config(Config());
  EXPECT_EQ(print_config(parse_config(printed, "defaults.yaml")), printed);
}

TEST(Config, EveryKeyIsStoredAndPrinted) {
  for (const Key& key : keys()) {
    const std::string text =
        key.type == KeyType::kChoice    ? std::string(key.choices.back())
        : key.type == KeyType::kBoolean ? (format_value(key.get(Config())) == "true" ? "false" : "true")
        : key.type == KeyType::kText || key.type == KeyType::kTextList || key.type == KeyType::kDatasets ? "some/path"
        : key.type == KeyType::kNamedFiles ? "{\"a\": \"b.jsonl\", \"c\": \"data/*.jsonl\"}"
        : key.type == KeyType::kMapping    ? "{\"a\": 0.25}"
        : key.type == KeyType::kNumber     ? "0.25"
        : key.bounds.high == 1             ? "0"
                                           : "17";
    Config config;
    const Value value = parse_value(key, text, "test");
    key.set(config, value);
    EXPECT_NE(format_value(key.get(config)).find(text), std::string::npos) << key.name;
  }
}

TEST(Config, ValidationFilesMayHaveNames) {
  const auto files = [](const std::string& text, const Overrides& overrides = {}) {
    return parse_config(text, "run.yaml", overrides).data.validation_file;
  };
  const Mapping named = {{"chat", "a.jsonl"}, {"code-2", "0012"}};
  EXPECT_EQ(files("validation_file: {chat: a.jsonl, code-2: 0012}\n").named, named);  // no number
  EXPECT_EQ(files("validation_file:\n  chat: a.jsonl\n  code-2: '0012'\nseed: 1\n").named, named);
  EXPECT_EQ(files("seed: 1\n", {{"validation_file", "{\"chat\": \"a.jsonl\", code-2: 0012}"}}).named, named);
  EXPECT_NE(flag_error({{"validation_file", "{chat: null}"}}).find("--validation_file: chat: has no file"),
            std::string::npos);
  EXPECT_EQ(files("validation_file: [a, b]\n").path, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(files("validation_file: a=b.jsonl\n").named.empty());
  // An item of a list is a file, whatever it is called.
  const std::vector<std::string> odd = {"{x}.jsonl", "{a: d.jsonl}"};
  Config listed = parse_config("validation_file:\n- '{x}.jsonl'\n- \"{a: d.jsonl}\"\n", "run.yaml");
  EXPECT_EQ(listed.data.validation_file.path, odd);
  EXPECT_EQ(parse_config(print_config(listed), "again.yaml").data.validation_file.path, odd);
  Config config = parse_config("validation_file: {chat: a.jsonl, code-2: 0012}\n", "run.yaml");
  EXPECT_EQ(parse_config(print_config(config), "again.yaml").data.validation_file.named, named);
}

TEST(Config, WarmupStepsBelowOneIsARatio) {  // as transformers 5 has it
  const Config share = parse_config("warmup_steps: 0.1\nwarmup_ratio: 0.5\n", "run.yaml");
  EXPECT_EQ(share.optimizer.warmup_steps, 0);
  EXPECT_EQ(share.optimizer.warmup_ratio, 0.1);
  EXPECT_EQ(parse_config("warmup_steps: 3.0\n", "run.yaml").optimizer.warmup_steps, 3);
  EXPECT_EQ(error_of("warmup_steps: 2.5\n"),
            "run.yaml:1: warmup_steps: 2.5 is not a whole number; write it without a fraction");
}

class BadConfig : public testing::TestWithParam<BadText> {};

TEST_P(BadConfig, OneLineNamesPlaceAndMend) {
  const std::string error = error_of(GetParam().text);
  EXPECT_NE(error.find(GetParam().message), std::string::npos) << "got: " << error;
  EXPECT_EQ(error.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    Keys, BadConfig,
    testing::Values(
        BadText{"validation_file: {a: x, b: [y, z]}\n", "validation_file: b: takes one value, not a list"},
        BadText{"validation_file: {a/b: x}\n",
                "run.yaml:1: validation_file: 'a/b' is no name of a set; use letters, digits"},
        BadText{"validation_file: {'': x}\n", "'' is no name of a set"},
        BadText{"validation_file: {a: ''}\n", "validation_file: a: the value is empty"},
        BadText{"validation_file:\n  chat:\n  code: x\n", "run.yaml:1: validation_file: chat: has no file; name it"},
        BadText{"validation_file: [a, ~]\n", "validation_file: an item of the list is empty"},
        BadText{"validation_file: [{a: x}]\n", "run.yaml:1: validation_file: nested values are not allowed"},
        BadText{"validation_file: {a: x, a: y}\n", "the key 'a' is repeated"},
        BadText{"train_file: {a: x}\n", "run.yaml:1: train_file: nested values are not allowed"},
        BadText{"seed: 1\nlearing_rate: 1\n", "run.yaml:2: unknown key 'learing_rate'; did you mean 'learning_rate'?"},
        BadText{"zzzzzzzzzzzz: 1\n", "run.yaml:1: unknown key 'zzzzzzzzzzzz'; 'mixtune train --help' lists the keys"},
        BadText{"seed: 1\npacking: true\nseed: 2\n", "run.yaml:3: the key 'seed' is repeated; it stands in line 1"},
        BadText{": 1\n", "run.yaml:1: unknown key 'null'"}, BadText{"", "run.yaml: is empty"},
        BadText{"# only\n\n", "run.yaml: is empty"}, BadText{"---\n", "run.yaml"}));

INSTANTIATE_TEST_SUITE_P(
    Values, BadConfig,
    testing::Values(
        BadText{"learning_rate: fast\n", "run.yaml:1: learning_rate: 'fast' is not a number; write one from 0 to 100"},
        BadText{"learning_rate: -1e-5\n", "run.yaml:1: learning_rate: -1e-5 is out of range"},
        BadText{"learning_rate: nan\n", "nan is out of range"}, BadText{"learning_rate: .nan\n", "'.nan' is not"},
        BadText{"learning_rate: inf\n", "inf is out of range"}, BadText{"learning_rate: 1e30\n", "out of range"},
        BadText{"learning_rate: 1e999\n", "out of range"}, BadText{"learning_rate: 0x10\n", "is not a number"},
        BadText{"learning_rate: _1\n", "is not a number"}, BadText{"learning_rate: 1__0\n", "is not a number"},
        BadText{"learning_rate:\n", "'null' is not a number"}, BadText{"learning_rate: [1]\n", "takes one value"},
        BadText{"adam_beta1: 1\n", "run.yaml:1: adam_beta1: 1 is out of range; write a number at least 0 and below 1"},
        BadText{"adam_beta2: 1.0\n", "out of range"}, BadText{"adam_epsilon: 0\n", "from 1e-37 to 1"},
        BadText{"warmup_ratio: 1.5\n", "out of range"}, BadText{"weight_decay: -0.1\n", "out of range"},
        BadText{"max_grad_norm: -1\n", "out of range"}, BadText{"router_aux_loss_coef: -1\n", "out of range"},
        BadText{"per_device_train_batch_size: 0\n", "0 is out of range"},
        BadText{"gradient_accumulation_steps: 0\n", "0 is out of range"},
        BadText{"per_device_train_batch_size: 1.5\n", "1.5 is not a whole number"},
        BadText{"max_steps: 99999999999999999999\n", "out of range"}, BadText{"max_steps: -2\n", "out of range"},
        BadText{"max_steps: 0\n", "nothing to train in 0 steps"}, BadText{"num_train_epochs: 0\n", "above 0"},
        BadText{"max_seq_length: 1\n", "out of range"}, BadText{"logging_steps: 0\n", "out of range"},
        BadText{"seed: -1\n", "out of range"}, BadText{"seed: 4294967296\n", "out of range"},
        BadText{"packing: 2\n", "run.yaml:1: packing: '2' is neither true nor false"},
        BadText{"packing: maybe\n", "'maybe' is neither"},
        BadText{"lr_scheduler_type: cosin\n", "unknown value 'cosin'; did you mean 'cosine'?"},
        BadText{"device: tpu_v5_pod\n", "use one of: auto, cpu, cuda"},
        BadText{"output_dir: ''\n", "run.yaml:1: output_dir: the value is empty"},
        BadText{"output_dir: \"a\\nb\"\n", "'a\\x0ab' holds a control character"},
        BadText{"output_dir: \"a\\0b\"\n", "control character"}, BadText{"train_file: []\n", "the list is empty"},
        BadText{"train_file: [a, ~]\n", "an item of the list is empty"}));

INSTANTIATE_TEST_SUITE_P(
    Yaml, BadConfig,
    testing::Values(
        BadText{"seed: &a 1\n", "run.yaml:1: an anchor (&name) is not allowed"},
        BadText{"seed: &a 1\nmax_steps: *a\n", "an anchor"}, BadText{"max_steps: *a\n", "run.yaml:1: "},
        BadText{"<<: *a\n", "run.yaml:1: "},
        BadText{"<<: {seed: 1}\n", "unknown key '<<'; 'mixtune train --help' lists the keys; nested values are not"},
        BadText{"seed: !!int 1\n", "the tag 'tag:yaml.org,2002:int' is not allowed"},
        BadText{"!x seed: 1\n", "the tag '!x' is not allowed"}, BadText{"seed: {a: 1}\n", "run.yaml:1: seed: nested"},
        BadText{"training:\n  seed: 1\n", "nested values are not allowed"},
        BadText{"train_file: [[a]]\n", "nested values are not allowed"},
        BadText{"train_file: [a, {b: c}]\n", "nested values are not allowed"},
        BadText{"? [a]\n: 1\n", "nested values are not allowed"}, BadText{"hello\n", "a config is a mapping"},
        BadText{"- a\n- b\n", "a config is a mapping"}, BadText{"[a, b]\n", "a config is a mapping"},
        BadText{"seed: 1\n---\nseed: 2\n", "more than one YAML document"}, BadText{"seed: 1\nfoo bar\n", "run.yaml:"},
        BadText{"seed: 1\n  max_steps: 2\n", "run.yaml:2: "}, BadText{"seed: [1\n", "run.yaml:"},
        BadText{"seed: 'x\n", "run.yaml:"}, BadText{"\tseed: 1\n", "run.yaml:1"},
        BadText{"seed: 1\noutput_dir: \xff\xfe\n", "run.yaml:2: not UTF-8 text"},
        BadText{"\xff\xfes\n", "run.yaml:1: not UTF-8 text"}));

INSTANTIATE_TEST_SUITE_P(
    Together, BadConfig,
    testing::Values(BadText{"validation_file: v\nvalidation_split_percentage: 5\n",
                            "run.yaml:2: validation_split_percentage: there is a validation_file too"},
                    BadText{"eval_steps: 5\n", "run.yaml:1: eval_steps: there is no validation data"},
                    BadText{"eval_on_start: true\n",
                            "run.yaml:1: eval_on_start: there is no validation data; set validation_file, "
                            "validation_split_percentage or split, or remove eval_on_start"},
                    BadText{"max_seq_length: 1048576\nper_device_train_batch_size: 65536\n",
                            "run.yaml:1: max_seq_length: 65536 rows of 1048576 tokens are too many"}));

TEST(Config, UnusualButGoodYaml) {
  EXPECT_EQ(error_of("\xef\xbb\xbfseed: 1\n"), "");  // byte order mark
  EXPECT_EQ(error_of("seed: 1\r\nmax_steps: 2\r\n"), "");
  EXPECT_EQ(error_of("---\nseed: 1\n...\n"), "");
  EXPECT_EQ(error_of("{seed: 1, max_steps: 2}"), "");
  EXPECT_EQ(error_of("seed: 1"), "");
}

TEST(Config, HostileYamlEndsSoon) {
  const auto repeat = [](std::string_view piece) {
    std::string text;
    while (text.size() + piece.size() < (1 << 20)) text += piece;
    return text;
  };
  for (const char* piece :
       {"[",   "{",    "a: ", "- ",  "? ",           "!",    "&a ", "*a ", "a",     "\"",  "\n", "#",
        "-\n", "a\n ", "%",   "|\n", "train_file: ", "[[a,", ", ",  "\\",  "---\n", "a:\n"}) {
    for (const std::string& start : {std::string(), std::string("train_file: ")}) {
      const auto begin = std::chrono::steady_clock::now();
      error_of(start + repeat(piece));  // an error or not: "train_file: " and a megabyte of blanks is well-formed
      EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5)) << start << piece;
    }
  }
}

TEST(Config, BadFlags) {
  EXPECT_EQ(flag_error({{"learing_rate", "1"}}),
            "command line: unknown key 'learing_rate'; did you mean 'learning_rate'?");
  EXPECT_EQ(flag_error({{"seed", "1"}, {"seed", "2"}}), "--seed: is given twice; give it once");
  EXPECT_EQ(flag_error({{"learning_rate", "fast"}}),
            "--learning_rate: 'fast' is not a number; write one from 0 to 100");
}

TEST(Config, RequiredKeys) {
  const Config config = parse_config("output_dir: x\n", "run.yaml");
  EXPECT_NO_THROW(require_keys(config, {"output_dir"}));
  try {
    require_keys(config, {"output_dir", "train_file"});
    FAIL();
  } catch (const UserError& error) {
    EXPECT_STREQ(
        error.what(),
        "train_file: is required but not set; add 'train_file: ...' to the config or --train_file to the command");
  }
}

class BadFile : public testing::Test {
 protected:
  std::string error(const std::string& path) {
    try {
      load_config(path, {});
      return "";
    } catch (const UserError& user_error) {
      return user_error.what();
    }
  }
  TempFolder folder_;
};

TEST_F(BadFile, Missing) {
  EXPECT_NE(error(folder_ / "none.yaml").find("No such file"), std::string::npos);
}

TEST_F(BadFile, FolderDeviceAndPipe) {
  EXPECT_NE(error(folder_ / "").find("is a folder"), std::string::npos);
  EXPECT_NE(error("/dev/zero").find("not a regular file"), std::string::npos);
  ASSERT_EQ(mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  EXPECT_NE(error(folder_ / "pipe").find("not a regular file"), std::string::npos);  // and does not hang
}

TEST_F(BadFile, TooLarge) {
  std::ofstream(folder_ / "large.yaml") << std::string((1 << 20) + 1, '#');
  EXPECT_NE(error(folder_ / "large.yaml").find("larger than 1 MiB"), std::string::npos);
}

TEST_F(BadFile, GoodFileIsRead) {
  std::ofstream(folder_ / "good.yaml") << "seed: 9\n";
  EXPECT_EQ(load_config(folder_ / "good.yaml", {}).machine.seed, 9u);
}

}  // namespace
}  // namespace mixtune
