// Entries of `datasets` with a template or a split of their own, and `split`, through the program itself.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "program.h"

namespace mixtune {
namespace {

class DataSets : public testing::Test {
 protected:
  DataSets() {
    make_model(work_.path() / "model");
    std::string chats, texts;
    for (int i = 0; i < 20; ++i) {
      const std::string number = std::to_string(i);
      chats += "{\"messages\": [{\"role\": \"user\", \"content\": \"Define " + number +
               "\"}, {\"role\": \"assistant\", \"content\": \"an animal\"}]}\n";
      texts += "{\"text\": \"line " + number + "\"}\n";
    }
    put("chats.jsonl", chats);
    put("texts.jsonl", texts);
  }

  void put(const std::string& name, const std::string& content) { write(work_.path() / name, content); }

  Outcome run(std::vector<std::string> args, int code = 0) {
    Outcome outcome = run_mixtune(std::move(args), work_.path());
    EXPECT_EQ(outcome.code, code) << outcome.err;
    return outcome;
  }
  Outcome train(const std::string& config, std::vector<std::string> more = {}, int code = 0) {
    put("run.yaml", config);
    more.insert(more.begin(), {"train", "run.yaml", "--model_name_or_path=model", "--output_dir=out",
                               "--max_seq_length=64", "--overwrite_output_dir"});
    return run(std::move(more), code);
  }
  // What `preprocess` writes; what it logs goes to `said_`.
  std::string tokens(const std::string& config, std::vector<std::string> more = {}) {
    put("run.yaml", config);
    more.insert(more.begin(),
                {"preprocess", "run.yaml", "--tokenizer_name_or_path=model", "--output=out.jsonl", "--overwrite"});
    said_ = run(std::move(more)).err;
    return read(work_.path() / "out.jsonl");
  }

  TempFolder work_;
  std::string said_;
};

TEST_F(DataSets, EachEntryIsToldInItsTemplate) {
  const std::string path = "train_file: chats.jsonl\nchat_template: ";
  const std::string vicuna = tokens(path + "vicuna\n"), alpaca = tokens(path + "alpaca\n"),
                    v1 = tokens(path + "mistral-v1\n");
  ASSERT_NE(vicuna, alpaca);
  const std::string entries =
      "datasets:\n- {path: chats.jsonl, template: vicuna}\n- {path: chats.jsonl}\n- {path: chats.jsonl, template: "
      "alpaca}\n";
  EXPECT_EQ(tokens(entries + "chat_template: mistral-v1\n"), vicuna + v1 + alpaca);
  expect_part(said_, "chat template of entry 1: vicuna\n");
  expect_part(said_, "chat template of entry 3: alpaca\n");
  expect_part(said_, "chat template: mistral-v1 (");
  EXPECT_EQ(tokens(entries + "chat_template: auto\n"), vicuna + v1 + alpaca) << "auto is the run's";
}

TEST_F(DataSets, TheRunsTemplateIsWhatIsSaved) {
  const std::string entry = "datasets: [{path: chats.jsonl, template: vicuna}]\nmax_steps: 1\n";
  expect_part(train(entry + "chat_template: zephyr\n").err, "chat template: zephyr (");
  expect_part(read(work_.path() / "out/config.resolved.yaml"), "chat_template: zephyr\n");
  expect_part(read(work_.path() / "out/checkpoint-1/tokenizer_config.json"), "<|assistant|>");
  EXPECT_EQ(train(entry).err.find("chat template: "), std::string::npos) << "no entry needs the folder's";
  expect_part(read(work_.path() / "out/config.resolved.yaml"), "chat_template: auto\n");
}

TEST_F(DataSets, ATemplateIsPartOfTheKeyOfTheCache) {
  const std::vector<std::string> cached = {"--data_cache=cache", "--dry-run", "--chat_template=zephyr"};
  const auto digest = [&](const std::string& name) {
    const std::string out = train("datasets: [{path: chats.jsonl, template: " + name + "}]\n", cached).out;
    return out.substr(out.find("# an epoch"));
  };
  const std::string vicuna = digest("vicuna"), alpaca = digest("alpaca");
  EXPECT_NE(vicuna, alpaca);
  EXPECT_EQ(digest("vicuna"), vicuna);
}

TEST_F(DataSets, ATemplateThatSaysNothingIsNamed) {
  tokens("datasets: [{path: texts.jsonl, template: vicuna}]\n");
  expect_part(said_, "warning: run.yaml:1: datasets: entry 1: template: its records are no conversations");
}

TEST_F(DataSets, SplitsAreOfEachEntry) {
  const Outcome both =
      train("datasets:\n- {path: chats.jsonl}\n- {path: texts.jsonl, split: '3,1'}\nsplit: 8,1,1\n", {"--dry-run"});
  expect_part(both.err, "chats.jsonl: split 8,1,1: 16 records to train on, 2 for validation, 2 for a test");
  expect_part(both.err, "texts.jsonl: split 3,1: 15 records to train on, 5 for validation, 0 for a test");
  expect_part(both.out, "# an epoch: 31 documents");
  expect_part(both.out, "# validation: 7 documents");
  const Outcome one = train("datasets:\n- path: chats.jsonl\n- {path: texts.jsonl, split: '0,1'}\n", {"--dry-run"});
  expect_part(one.out, "# an epoch: 20 documents");
  expect_part(one.out, "# validation: 20 documents");
}

TEST_F(DataSets, ASplitTrainsAndValidates) {
  const Outcome outcome = train("train_file: texts.jsonl\nsplit: 8,1,1\nmax_steps: 2\neval_steps: 1\n");
  const std::string metrics = read(work_.path() / "out/metrics.jsonl");
  expect_part(metrics, "\"eval_loss\"");
}

TEST_F(DataSets, SplitsThatCannotBeAreRefused) {
  const std::string file = "train_file: texts.jsonl\n";
  expect_part(train(file + "split: 9,1\nvalidation_file: chats.jsonl\n", {}, 2).err,
              "run.yaml:2: split: there is a validation_file too; keep one of the two");
  expect_part(train(file + "split: 9,1\nvalidation_split_percentage: 5\n", {}, 2).err,
              "run.yaml:2: split: there is a validation_split_percentage too");
  expect_part(train("datasets: [{path: texts.jsonl, split: '9,1'}]\nvalidation_file: chats.jsonl\n", {}, 2).err,
              "run.yaml:1: datasets: split: there is a validation_file too");
  expect_part(train(file + "split: 9;1\n", {}, 2).err, "run.yaml:2: split: '9;1' is not a split");
  expect_part(train(file + "split: 0,1\n", {}, 2).err, "run.yaml:2: split: leaves nothing to train on");
  expect_part(train(file + "split: 999,1\n", {}, 2).err, "gives validation 0 of the 20 records of texts.jsonl");
  expect_part(train("datasets: [{path: texts.jsonl, weight: 1, split: '0,1'}]\n", {}, 2).err,
              "trains on nothing of texts.jsonl, which has a weight");
}

}  // namespace
}  // namespace mixtune
