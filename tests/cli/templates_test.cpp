// Chat templates as the program finds them, trains with them and saves them.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "base/json_value.h"
#include "base/test_paths.h"
#include "program.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Ids = std::vector<int>;

const std::string kCases = source_path("tests/fixtures/templates");

// A checkpoint with ChatML's tokens and text, a tokeniser of Mistral's version 3, and text that holds the template.
class Templates : public testing::Test {
 protected:
  Outcome run(std::vector<std::string> args, int code = 0) const {
    Outcome outcome = run_mixtune(std::move(args), work_.path());
    EXPECT_EQ(outcome.code, code) << outcome.err;
    return outcome;
  }

  // The ids that `preprocess` writes for a file, one record after the other; what it logs goes to `said_`.
  std::vector<Ids> preprocess(const std::string& file, const std::string& tokenizer,
                              std::vector<std::string> more = {}) {
    more.insert(more.begin(),
                {"preprocess", "--train_file=" + kCases + "/" + file,
                 "--tokenizer_name_or_path=" + kCases + "/" + tokenizer, "--output=out.jsonl", "--overwrite"});
    said_ = run(more).err;
    return ids_in((work_.path() / "out.jsonl").string());
  }

  static std::vector<Ids> ids_in(const std::string& path) {
    std::vector<Ids> all;
    std::istringstream lines(read(path));
    for (std::string line; std::getline(lines, line);) all.push_back(json::parse(line)["input_ids"]);
    return all;
  }

  bool said(const std::string& text) const { return said_.find(text) != said_.npos; }

  Outcome train(std::vector<std::string> more) const {
    more.insert(more.begin(), {"train", "--model_name_or_path=model", "--output_dir=out", "--max_steps=1",
                               "--max_seq_length=64", "--overwrite_output_dir"});
    return run(more);
  }

  fs::path path(const std::string& name) const { return work_.path() / name; }

  TempFolder work_;
  std::string said_;
};

TEST_F(Templates, Version3TokeniserGetsVersion3) {
  EXPECT_EQ(preprocess("v3-instruct/data.jsonl", "v3-instruct"), ids_in(kCases + "/v3-instruct/expected.jsonl"));
  EXPECT_TRUE(said("chat template: mistral-v3 (the tokeniser's folder has none, [INST] is a control token)")) << said_;
}

TEST_F(Templates, ChatmlCheckpointGetsChatml) {
  std::vector<Ids> transformers;
  for (const json& item : json::parse(read(kCases + "/model-chatml.json"))) transformers.push_back(item["ids"]);
  EXPECT_EQ(preprocess("model-chatml/data.jsonl", "model-chatml"), transformers);
  EXPECT_TRUE(said("chat template: chatml (")) << said_;
}

TEST_F(Templates, AddedTokensInTextStayTextOrBecomeTokens) {
  EXPECT_EQ(preprocess("model-chatml/text.jsonl", "model-chatml", {"--parse_special_tokens"}),
            (std::vector<Ids>{{1, 513, 414, 13, 259, 418, 512, 467, 13, 512}}));
  EXPECT_FALSE(said("warning")) << said_;
  const Ids text = preprocess("model-chatml/text.jsonl", "model-chatml")[0];
  EXPECT_EQ(std::ranges::count(text, 513), 0);
  EXPECT_TRUE(
      said("text.jsonl: 2 times in 1 records, text spells a special token (<|im_start|>), and stays text; "
           "'parse_special_tokens: true'"))
      << said_;
}

TEST_F(Templates, TextWithATemplateGetsNoSecondBosAndEos) {
  EXPECT_EQ(preprocess("text-with-template/data.jsonl", "text-with-template", {"--parse_special_tokens"}),
            (std::vector<Ids>{{1,   467, 94, 503, 501, 495, 496, 96, 446, 378, 294, 335, 490,
                               467, 94,  50, 503, 501, 495, 496, 96, 433, 403, 489, 2}}));
  const Ids text = preprocess("text-with-template/data.jsonl", "text-with-template")[0];
  EXPECT_EQ(std::ranges::count(text, 1), 1);
  EXPECT_EQ(std::ranges::count(text, 2), 1);
  EXPECT_TRUE(said("2 times in 1 records, text spells a special token (<s>)")) << said_;
}

TEST_F(Templates, RunNamesItsTemplateAndLeavesTheFoldersAsItIs) {
  fs::copy(kCases + "/model-chatml", path("model"));
  const Outcome outcome = train({"--train_file=model/data.jsonl"});
  EXPECT_NE(outcome.err.find("chat template: chatml (model/tokenizer_config.json has that of chatml-bare)"),
            std::string::npos)
      << outcome.err;
  EXPECT_NE(read(path("out/config.resolved.yaml")).find("chat_template: chatml\n"), std::string::npos);
  EXPECT_EQ(read(path("out/checkpoint-1/tokenizer_config.json")), read(kCases + "/model-chatml/tokenizer_config.json"));
  EXPECT_FALSE(fs::exists(path("out/checkpoint-1/chat_template.jinja")));
}

TEST_F(Templates, CheckpointSaysWhatItWasTrainedWith) {
  make_model(path("model"));
  fs::remove(path("model/tokenizer_config.json"));
  write(path("data.jsonl"), "{\"input\": \"Define: otter\", \"output\": \"an animal that swims\"}\n");
  EXPECT_NE(train({"--train_file=data.jsonl"}).err.find("chat template: mistral-v1 (the tokeniser's folder has none"),
            std::string::npos);
  const json saved = json::parse(read(path("out/checkpoint-1/tokenizer_config.json")));
  EXPECT_EQ(saved, json::parse(read(source_path("examples/quickstart/pretrained/tokenizer_config.json"))));

  fs::rename(path("out/checkpoint-1/tokenizer_config.json"), path("model/tokenizer_config.json"));
  const std::string err = train({"--train_file=data.jsonl", "--chat_template=vicuna"}).err;
  EXPECT_NE(err.find("has another chat template, mistral-v1; checkpoints will have vicuna"), std::string::npos) << err;
  EXPECT_NE(read(path("out/checkpoint-1/tokenizer_config.json")).find("ASSISTANT: "), std::string::npos);
  EXPECT_NE(run({"generate", "out/checkpoint-1", "--chat", "--prompt=a", "--max-new-tokens=1"}).err.find("vicuna"),
            std::string::npos);
}

TEST_F(Templates, TextAloneNeedsNone) {
  make_model(path("model"));
  write(path("model/tokenizer_config.json"), "{\"chat_template\": \"{{ unknown }}\"}");
  write(path("text.jsonl"), "{\"text\": \"An otter swims.\"}\n");
  EXPECT_EQ(train({"--train_file=text.jsonl"}).err.find("chat template"), std::string::npos);
  write(path("chat.jsonl"), "{\"input\": \"a\", \"output\": \"b\"}\n");
  const Outcome refused =
      run({"preprocess", "--train_file=chat.jsonl", "--tokenizer_name_or_path=model", "--debug=1"}, 2);
  EXPECT_NE(refused.err.find("has a chat template that mixtune does not know"), std::string::npos) << refused.err;
}

TEST_F(Templates, GenerateTakesASystemTextAndAName) {
  make_model(path("model"));
  const auto chat = [&](const std::string& name, std::vector<std::string> more) {
    more.insert(more.begin(), {"generate", "model", "--chat", "--prompt=Define: otter", "--max-new-tokens=1",
                               "--logits=" + name + ".safetensors"});
    return run(more);
  };
  // The first dimension of the logits: the tokens of the prompt.
  const auto tokens = [&](const std::string& name) {
    const std::string shape = run({"inspect", name + ".safetensors"}).out;
    return std::stoi(shape.substr(shape.find('[') + 1));
  };
  chat("alone", {});
  chat("with_system", {"--system=Be brief, and say nothing else."});
  EXPECT_GT(tokens("with_system"), tokens("alone") + 5);
  EXPECT_NE(chat("zephyr", {"--chat-template=zephyr"}).err.find("chat template: zephyr"), std::string::npos);
}

TEST_F(Templates, FlagsOfChatNeedIt) {
  const auto refusal = [&](const std::string& flag, const std::string& more) {
    return run({"generate", "none", "--prompt=a", flag, more}, 2).err;
  };
  EXPECT_NE(refusal("--system=b", "--seed=1").find("--system: has no effect without --chat"), std::string::npos);
  EXPECT_NE(refusal("--chat-template=zephyr", "--seed=1").find("--chat-template: has no effect without --chat"),
            std::string::npos);
  make_model(path("none"));
  EXPECT_NE(refusal("--chat", "--chat-template=chatmi").find("--chat-template"), std::string::npos);
}

}  // namespace
}  // namespace mixtune
