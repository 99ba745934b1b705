#include "data/choose_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/json_value.h"
#include "data/known_templates.h"
#include "data/template_fixtures.h"

namespace mixtune {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using Name = ChatTemplateName;

const std::string kDolphin =
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% for message in "
    "messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% "
    "if "
    "add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

class ChooseTemplateTest : public testing::Test {
 protected:
  void tokenizer(const std::string& which, const std::string& name = "tokenizer.model") {
    const std::string from = which == "plain" ? kTokenizerFixtures : kTemplateFixtures + "/" + which;
    std::filesystem::copy(from + "/tokenizer.model", folder_.path(name));
    tokenizer_ = open_tokenizer(folder_.path(name));
  }

  void config(const json& chat_template) {
    folder_.write("tokenizer_config.json", json{{"chat_template", chat_template}}.dump());
  }

  ChosenTemplate choose(Name asked = Name::kAuto) {
    return choose_template(asked, folder_.path(), *tokenizer_, "run.yaml:3: chat_template");
  }

  std::string refusal(Name asked = Name::kAuto) {
    return user_error([&] { choose(asked); });
  }

  const TestFolder folder_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

std::string known(const std::string& file) {
  return TestFolder::read(source_path("src/data/templates/" + file + ".jinja"));
}

TEST_F(ChooseTemplateTest, ConfigsTemplateIsKnownByItsText) {
  tokenizer("chat");
  config(kDolphin);
  const ChosenTemplate chosen = choose();
  EXPECT_EQ(chosen.chat_template.name, Name::kChatml);
  EXPECT_THAT(chosen.why, HasSubstr("tokenizer_config.json has that of dolphin-2.5-mixtral"));
  EXPECT_EQ(chosen.source, kDolphin);
  EXPECT_TRUE(chosen.is_folders);
}

TEST_F(ChooseTemplateTest, EveryKnownTemplateIsRecognised) {
  tokenizer("chat");
  for (const KnownTemplate& each : known_templates()) {
    if (each.name == Name::kMistralV2 || each.name == Name::kMistralV3 || each.name == Name::kMistralV3Tekken) continue;
    config(std::string(each.source()));
    EXPECT_EQ(choose().chat_template.name, each.name) << each.file;
    EXPECT_EQ(choose().chat_template.variant, each.variant) << each.file;
  }
}

TEST_F(ChooseTemplateTest, JinjaFileComesFirstAndListsHaveADefault) {
  tokenizer("chat");
  config(json::array({{{"name", "tool_use"}, {"template", "?"}}, {{"name", "default"}, {"template", kDolphin}}}));
  EXPECT_EQ(choose().chat_template.name, Name::kChatml);
  folder_.write("chat_template.jinja", known("zephyr-7b-beta"));
  EXPECT_EQ(choose().chat_template.name, Name::kZephyr);
  EXPECT_THAT(choose().why, HasSubstr("chat_template.jinja"));
}

TEST_F(ChooseTemplateTest, WithoutATemplateTheTokeniserTells) {
  tokenizer("plain");
  EXPECT_EQ(choose().chat_template.name, Name::kMistralV1);
  EXPECT_EQ(choose().source, known("mixtral-8x7b-instruct"));
  config(nullptr);
  EXPECT_EQ(choose().chat_template.name, Name::kMistralV1);
}

TEST_F(ChooseTemplateTest, ControlTokensAreVersion3AndANameTells2) {
  tokenizer("mistral");
  EXPECT_EQ(choose().chat_template.name, Name::kMistralV3);
  EXPECT_EQ(choose().source, known("mistral-v3"));
  for (const char* file : {"mixtral-8x7b-instruct-2023", "mixtral-8x22b-instruct-2024", "mistral-7b-instruct-v0.3"}) {
    config(known(file));
    EXPECT_EQ(choose().chat_template.name, Name::kMistralV3) << file;
    EXPECT_TRUE(choose().is_folders) << file;
  }
  config(kDolphin);  // dolphin-2.9-mixtral-8x22b: ChatML with a tokeniser of version 3
  EXPECT_EQ(choose().chat_template.name, Name::kChatml);
  config(nullptr);
  tokenizer("mistral", "tokenizer.model.v2");
  EXPECT_EQ(choose().chat_template.name, Name::kMistralV2);
}

TEST_F(ChooseTemplateTest, UnknownTemplateIsRefusedWithItsFirstDifference) {
  tokenizer("chat");
  std::string changed = kDolphin;
  changed.replace(changed.find("'<|im_end|>'"), 12, "'<|end|>'");
  config(changed);
  const std::string message = refusal();
  EXPECT_THAT(message, HasSubstr("tokenizer_config.json: has a chat template that mixtune does not know"));
  EXPECT_THAT(message, HasSubstr("the nearest is chatml (dolphin-2.5-mixtral)"));
  EXPECT_THAT(message, HasSubstr("where the folder's has `end|>"));
  EXPECT_THAT(message, HasSubstr("and it has `im_end|>"));
  EXPECT_THAT(message, HasSubstr("set chat_template to its name"));
  const ChosenTemplate named = choose(Name::kChatml);
  EXPECT_EQ(named.chat_template.name, Name::kChatml);
  EXPECT_EQ(named.source, known("nous-hermes-2-mixtral"));  // the checkpoint is to have this
}

TEST_F(ChooseTemplateTest, NameTakesTheFoldersVariantWhereItIsOfThatName) {
  tokenizer("chat");
  config(known("qwen1.5-72b-chat"));
  EXPECT_EQ(choose(Name::kChatml).chat_template.variant.default_system, "You are a helpful assistant.");
  EXPECT_TRUE(choose(Name::kChatml).is_folders);
  EXPECT_FALSE(choose(Name::kZephyr).is_folders);
  EXPECT_EQ(choose(Name::kZephyr).source, known("zephyr-7b-beta"));
}

TEST_F(ChooseTemplateTest, RefusesWhatCannotBe) {
  tokenizer("plain");
  EXPECT_THAT(refusal(Name::kMistralV3),
              HasSubstr("run.yaml:3: chat_template: chat template mistral-v3 needs the control "
                        "token [INST], which"));
  EXPECT_THAT(refusal(Name::kMistralV3Tekken), HasSubstr("mistral-v3-tekken is not supported"));
  config(known("mistral-7b-instruct-v0.3"));
  EXPECT_THAT(refusal(), HasSubstr("needs the control token [INST]"));
  config(known("mistral-nemo-instruct-2407"));
  EXPECT_THAT(refusal(), HasSubstr("mistral-v3-tekken is not supported"));
  for (const json& bad : {json(7), json::array(), json{{"name", "default"}}, json::array({{{"name", "rag"}}})}) {
    config(bad);
    EXPECT_THAT(refusal(), HasSubstr("'chat_template' is neither")) << bad;
    EXPECT_EQ(choose(Name::kMistralV1).chat_template.name, Name::kMistralV1);
  }
  folder_.write("tokenizer_config.json", "[]");
  EXPECT_THAT(refusal(), HasSubstr("tokenizer_config.json"));
}

TEST_F(ChooseTemplateTest, TokensOfChatmlNeedATemplate) {
  tokenizer("chat");
  EXPECT_THAT(refusal(), HasSubstr("has a token <|im_start|>, but its folder has no chat template"));
}

// transformers renders the template of the quickstart's folder to the tokens that mixtune trains on.
TEST(Quickstart, ChatsInTransformersAsItTrains) {
  const std::string folder = source_path("examples/quickstart/pretrained");
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(folder);
  const ChosenTemplate chosen = choose_template(Name::kAuto, folder, *tokenizer, "chat_template");
  EXPECT_TRUE(chosen.is_folders);
  EXPECT_EQ(chosen.chat_template.name, Name::kMistralV1);
  for (const json& item : template_cases("quickstart"))
    EXPECT_EQ(encode_conversation({.tokenizer = tokenizer.get(), .chat_template = chosen.chat_template},
                                  conversation_of(item), "")
                  .ids,
              item["ids"].get<std::vector<int32_t>>())
        << item;
}

}  // namespace
}  // namespace mixtune
