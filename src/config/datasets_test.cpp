#include "config/datasets.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/load.h"
#include "config/testing.h"

namespace mixtune {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

Config config_of(const std::string& text, const Overrides& overrides = {}) {
  return parse_config(text, "run.yaml", overrides);
}

const std::string kAll =
    "datasets:\n"
    "  - path: a.jsonl\n"
    "    weight: 0.3\n"
    "    format: text\n"
    "    template: chatml\n"
    "    split: 990,9,1\n"
    "    max_samples: 1_000\n"
    "  - {path: [b.jsonl, 'c d/*.jsonl'], weight: 7e-1}\n"
    "seed: 3\n";

TEST(Datasets, ReadsEveryKeyOfAnEntry) {
  const Config config = config_of(kAll);
  const Dataset first = {.path = {"a.jsonl"},
                         .weight = 0.3,
                         .format = DatasetFormat::kText,
                         .chat_template = ChatTemplateName::kChatml,
                         .split = "990,9,1",
                         .max_samples = 1000};
  const Dataset second = {.path = {"b.jsonl", "c d/*.jsonl"}, .weight = 0.7};
  EXPECT_THAT(config.data.datasets, testing::ElementsAre(first, second));
  EXPECT_EQ(config.machine.seed, 3u) << "what follows the list is read as before";
  EXPECT_EQ(config.where("datasets"), "run.yaml:1: datasets");
}

TEST(Datasets, NullIsAbsent) {
  const Config config = config_of("datasets:\n- {path: a, weight: null, format: ~, template: , split: null}\n");
  EXPECT_THAT(config.data.datasets, testing::ElementsAre(Dataset{.path = {"a"}}));
  EXPECT_TRUE(config_of("datasets: null\n").data.datasets.empty());
}

TEST(Datasets, PrintedOnesReadBack) {
  for (const std::string& text : {kAll, std::string("datasets: [{path: \"x: #\\\"{\"}, {path: '- y'}]\n"),
                                  std::string("datasets: 1 a 1e-300 b 1e12 c\n"), std::string("datasets: null\n")}) {
    const Config config = config_of(text), again = config_of(print_config(config));
    EXPECT_EQ(again.data.datasets, config.data.datasets) << print_config(config);
  }
}

using Pairs = std::vector<std::pair<double, std::string>>;

Pairs pairs_of(const Config& config) {
  Pairs pairs;
  for (const Dataset& dataset : config.data.datasets) pairs.emplace_back(dataset.weight, dataset.path.at(0));
  return pairs;
}

TEST(Datasets, WordsAreMegatronsDataPath) {
  const Pairs weighted = {{0.3, "a.jsonl"}, {70, "b"}}, plain = {{0, "a"}, {0, "b"}, {0, "c"}, {0, "d"}};
  EXPECT_EQ(pairs_of(config_of("datasets: 0.3 a.jsonl 70 b\n")), weighted);
  EXPECT_EQ(pairs_of(config_of("datasets: [0.3, a.jsonl, 70, b]\n")), weighted);
  EXPECT_EQ(pairs_of(config_of("seed: 1\n", {{"datasets", " 0.3  a.jsonl\t70 b "}})), weighted);
  EXPECT_EQ(pairs_of(config_of("seed: 1\n", {{"datasets", "0.3 a.jsonl"}, {"datasets", "70 b"}})), weighted);
  EXPECT_EQ(pairs_of(config_of("datasets: a b c d\n")), plain);
  EXPECT_EQ(pairs_of(config_of("datasets:\n- a\n- b\n- c\n- d\n")), plain);
  EXPECT_EQ(pairs_of(config_of("datasets: a.jsonl\n")), (Pairs{{0, "a.jsonl"}}));
  EXPECT_EQ(pairs_of(config_of("datasets: a b c\n")), (Pairs{{0, "a"}, {0, "b"}, {0, "c"}}));
  EXPECT_EQ(pairs_of(config_of("datasets: x\n", {{"datasets", "y"}})), (Pairs{{0, "y"}})) << "flags override";
}

TEST(Datasets, SaysWhatIsWrongWithAnEntry) {
  for (const auto& [text, message] : {
           BadText{"datasets:\n- path: a\n  wieght: 1\n",
                   "run.yaml:3: datasets: unknown key 'wieght' in an entry; did you mean 'weight'?"},
           BadText{"datasets:\n- path: a\n  zzz: 1\n",
                   "run.yaml:3: datasets: unknown key 'zzz' in an entry; an entry has: path, weight, format, template, "
                   "split, max_samples"},
           BadText{"datasets:\n- path: a\n  type: alpaca\n",
                   "run.yaml:3: datasets: unknown key 'type' in an entry; use 'format'"},
           BadText{"datasets:\n- path: a\n  ds_type: json\n", "not needed: a file's content says what it is"},
           BadText{"datasets:\n- path: a\n  chat_template: chatml\n", "use 'template'"},
           BadText{"datasets:\n- path: a\n  format: alpaca\n",
                   "run.yaml:3: datasets: format: unknown value 'alpaca'; use 'instruction'"},
           BadText{"datasets:\n- path: a\n  format: txt\n", "did you mean 'text'?"},
           BadText{"datasets:\n- path: a\n  template: chatmi\n",
                   "run.yaml:3: datasets: template: unknown value 'chatmi'; did you mean 'chatml'?"},
           BadText{"datasets:\n- path: a\n  split: [990, 9, 1]\n", "datasets: split: takes one value, not a list"},
           BadText{"datasets:\n- path: a\n- weight: 1\n", "run.yaml:3: datasets: an entry has no path"},
           BadText{"datasets:\n- {}\n", "run.yaml:2: datasets: an entry has no path"},
           BadText{"datasets:\n- path: null\n", "run.yaml:2: datasets: an entry has no path"},
           BadText{"datasets:\n- path: []\n", "run.yaml:2: datasets: path: the list is empty"},
           BadText{"datasets:\n- path: [a, ~]\n", "run.yaml:2: datasets: path: a path is empty"},
           BadText{"datasets:\n- path: ''\n", "run.yaml:2: datasets: path: the value is empty"},
           BadText{"datasets:\n- path: a\n  weight: 0\n", "run.yaml:3: datasets: weight: 0 is out of range"},
           BadText{"datasets:\n- path: a\n  weight: -1\n", "-1 is out of range"},
           BadText{"datasets:\n- path: a\n  weight: nan\n", "nan is out of range"},
           BadText{"datasets:\n- path: a\n  weight: inf\n", "inf is out of range"},
           BadText{"datasets:\n- path: a\n  weight: much\n", "'much' is not a number"},
           BadText{"datasets:\n- path: a\n  weight: [1]\n", "datasets: weight: takes one value, not a list"},
           BadText{"datasets:\n- path: a\n  max_samples: 0\n", "run.yaml:3: datasets: max_samples: 0 is out of range"},
           BadText{"datasets:\n- path: a\n  max_samples: 1.5\n", "1.5 is not a whole number"},
           BadText{"datasets:\n- path: a\n  path: b\n", "run.yaml:3: the key 'path' is repeated; it stands in line 2"},
           BadText{"datasets:\n- path: a\n  weight: 1\n- path: b\n",
                   "datasets: 1 of 2 entries have a weight; give each"},
           BadText{"datasets:\n- path: a\n  weight: {b: 1}\n", "run.yaml:3: datasets: nested values are not allowed"},
           BadText{"datasets:\n- path: [a, [b]]\n", "run.yaml:2: datasets: nested values are not allowed"},
           BadText{"datasets:\n- path: [a, {b: c}]\n", "run.yaml:2: datasets: nested values are not allowed"},
           BadText{"datasets:\n- [a]\n", "run.yaml:2: datasets: nested values are not allowed"},
           BadText{"datasets:\n  path: a\n", "run.yaml:2: datasets: nested values are not allowed"},
           BadText{"datasets:\n- ? {a: b}\n  : c\n", "nested values are not allowed"},
           BadText{"datasets:\n- a.jsonl\n- path: b\n", "run.yaml:1: datasets: 'a.jsonl' is no entry with a path"},
           BadText{"datasets: []\n", "run.yaml:1: datasets: the list is empty"},
           BadText{"datasets: ' '\n", "run.yaml:1: datasets: the value is empty"},
           BadText{"datasets: 1 a 2\n", "2 of its words are weights, for 3 words in all; write WEIGHT PATH"},
           BadText{"datasets: 1 a b c\n", "1 of its words are weights, for 4 words in all"},
           BadText{"datasets: a 1 b 2\n", "a weight stands before its path, not after it"},
           BadText{"datasets: 0 a\n", "0 is out of range"},
           BadText{"datasets: 1\n", "1 of its words are weights, for 1 words in all"},
           BadText{"datasets: 1 null\n", "a path is empty"},
           BadText{"datasets: a\ntrain_file: b\n", "run.yaml:1: datasets: there is a train_file too; keep one"},
           BadText{"train_file:\n- path: b\n", "run.yaml:2: train_file: nested values are not allowed"},
           BadText{"seed:\n- path: b\n", "run.yaml:2: seed: nested values are not allowed"},
       })
    EXPECT_THAT(error_of(text), HasSubstr(message)) << text;
}

TEST(Datasets, FlagsHaveTheirOwnPlace) {
  EXPECT_THAT(error_of("seed: 1\n", {{"datasets", "1 a 2"}}), StartsWith("--datasets: 2 of its words are weights"));
  EXPECT_THAT(error_of("seed: 1\n", {{"datasets", "1 a"}, {"datasets", "b"}}),
              StartsWith("--datasets: 1 of 2 entries have a weight"));
  EXPECT_THAT(error_of("train_file: b\n", {{"datasets", "a"}}), StartsWith("--datasets: there is a train_file too"));
}

TEST(Datasets, StandInThePlaceOfTrainFile) {
  EXPECT_NO_THROW(require_keys(config_of("datasets: a\n"), {"train_file"}));
  EXPECT_THROW(require_keys(config_of("seed: 1\n"), {"train_file"}), UserError);
}

TEST(Datasets, ManyFilesOfAPrintedConfig) {
  std::string text = "datasets:\n";
  for (int i = 0; i < 3000; ++i) text += fmt::format("- path: data/part-{}.jsonl\n", i);
  EXPECT_EQ(config_of(text).data.datasets.size(), 3000u);
  for (int i = 0; i < 3000; ++i) text += fmt::format("- path: data/part-{}.jsonl\n", i);
  EXPECT_THAT(error_of(text), HasSubstr("too many keys or items"));
}

TEST(Datasets, DataPathIsAnotherName) {
  EXPECT_EQ(pairs_of(config_of("data_path: 0.3 a 70 b\n")), (Pairs{{0.3, "a"}, {70, "b"}}));
  EXPECT_EQ(config_of("seq_length: 77\n").data.max_seq_length, 77);
  EXPECT_EQ(config_of("max_seq_length: 5\n", {{"seq_length", "77"}}).data.max_seq_length, 77) << "flags override";
  EXPECT_EQ(config_of("seq_length: 77\n").where("max_seq_length"), "run.yaml:1: seq_length");
  EXPECT_EQ(error_of("max_seq_length: 5\nseq_length: 6\n"),
            "run.yaml:2: seq_length: there is another name of it too: run.yaml:1: max_seq_length; keep one of the two");
  EXPECT_THAT(error_of("data_path: a\ntrain_file: b\n"),
              StartsWith("run.yaml:1: data_path: there is a train_file too"));
}

TEST(Windows, KeysThatDoNotFitAreNamed) {
  const std::string windows = "dataset_format: megatron\n";
  for (const auto& [text, message] : {
           std::pair(windows + "packing: true\n",
                     "run.yaml:2: packing: has no meaning with 'dataset_format: megatron'"),
           {windows + "long_documents: error\n", "run.yaml:2: long_documents: has no meaning"},
           {windows + "validation_split_percentage: 5\n", "has no meaning with 'dataset_format: megatron'; use split"},
           {windows + "datasets: [{path: a, max_samples: 3}]\n", "run.yaml:2: datasets: max_samples: has no meaning"},
           {windows + "datasets: [{path: a, template: chatml}]\n", "run.yaml:2: datasets: template: has no meaning"},
           {windows + "datasets: [{path: a, format: text}]\n", "run.yaml:2: datasets: format: has no meaning"},
           {"datasets: [{path: a, format: megatron}]\n",
            "'format: megatron' of an entry; set 'dataset_format: megatron'"},
           {"reset_position_ids: true\n", "run.yaml:1: reset_position_ids: is of the windows of 'dataset_format: meg"},
           {"reset_attention_mask: false\n", "run.yaml:1: reset_attention_mask: is of the windows"},
           {"eod_mask_loss: true\npacking: true\n", "run.yaml:1: eod_mask_loss: is of the windows"},
       })
    EXPECT_THAT(error_of(text), HasSubstr(message)) << text;
  const Config config =
      config_of(windows + "datasets: [{path: a, format: megatron, split: '9,1'}]\neod_mask_loss: true\n");
  EXPECT_FALSE(config.data.reset_attention_mask.has_value());
  EXPECT_EQ(config_of(windows + "reset_attention_mask: false\n").data.reset_attention_mask, false);
}

}  // namespace
}  // namespace mixtune
