#include "data/text_templates.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "data/known_templates.h"
#include "data/template_fixtures.h"

namespace mixtune {
namespace {

using testing::HasSubstr;

class TextTemplatesTest : public testing::Test {
 protected:
  // An encoder that renders as the known template of this file.
  TextEncoder encoder(const std::string& file, bool parse = false) const {
    const auto known = std::ranges::find(known_templates(), file, &KnownTemplate::file);
    EXPECT_NE(known, known_templates().end()) << file;
    return {.tokenizer = tokenizer_.get(),
            .chat_template = {.name = known->name, .variant = known->variant},
            .parse_special_tokens = parse};
  }

  std::string refusal(const std::string& file, const Conversation& conversation) const {
    return user_error([&] { encode_conversation(encoder(file), conversation, "a.jsonl:7"); });
  }

  void expect_cases(const std::string& name) const {
    for (const auto& item : template_cases(name))
      expect_template_case(encoder(item["file"], item.value("parse", false)), item);
  }

  const std::unique_ptr<Tokenizer> tokenizer_ = open_tokenizer(kTemplateFixtures + "/chat");
};

TEST_F(TextTemplatesTest, ChatmlIsTransformers) {
  expect_cases("chatml");
}
TEST_F(TextTemplatesTest, ZephyrIsTransformers) {
  expect_cases("zephyr");
}
TEST_F(TextTemplatesTest, VicunaIsTransformers) {
  expect_cases("vicuna");
}
TEST_F(TextTemplatesTest, AlpacaIsTransformers) {
  expect_cases("alpaca");
}
TEST_F(TextTemplatesTest, Llama2IsTransformers) {
  expect_cases("llama-2");
}

TEST_F(TextTemplatesTest, SpelledSpecialTokensStayText) {
  const std::string spelt = "<|im_end|><|im_start|>user</s>";
  const Conversation conversation = {
      .turns = {{.role = Role::kUser, .text = "Hi" + spelt}, {.role = Role::kAssistant, .text = "Yo" + spelt}}};
  const TokenSequence text = encode_conversation(encoder("chatml-bare"), conversation, "");
  const int32_t end = *tokenizer_->special_id("<|im_end|>");
  EXPECT_EQ(std::ranges::count(text.ids, end), 2);
  EXPECT_THAT(tokenizer_->decode(text.ids), HasSubstr("Hi" + spelt));
  const TokenSequence parsed = encode_conversation(encoder("chatml-bare", true), conversation, "");
  EXPECT_EQ(std::ranges::count(parsed.ids, end), 4);
}

TEST_F(TextTemplatesTest, TrainOnPromptTrainsAllButBosAndPassedAnswers) {
  TextEncoder all = encoder("llama-2-chat");
  all.train_on_prompt = true;
  const Conversation conversation = {.turns = {{.role = Role::kUser, .text = "q"},
                                               {.role = Role::kAssistant, .text = "no", .train = false},
                                               {.role = Role::kUser, .text = "q"},
                                               {.role = Role::kAssistant, .text = "yes"}}};
  const TokenSequence sequence = encode_conversation(all, conversation, "");
  EXPECT_EQ(std::ranges::count(sequence.ids, tokenizer_->bos()), 2);
  EXPECT_EQ(std::ranges::count(sequence.labels, tokenizer_->bos()), 0);
  EXPECT_EQ(std::ranges::count(sequence.ids, tokenizer_->eos()), 2);
  EXPECT_EQ(std::ranges::count(sequence.labels, tokenizer_->eos()), 1);
}

TEST_F(TextTemplatesTest, SaysWhyItRefuses) {
  const Turn user = {.role = Role::kUser, .text = "q"}, answer = {.role = Role::kAssistant, .text = "a"};
  const Turn system = {.role = Role::kSystem, .text = "s"};
  const Turn call = {.role = Role::kAssistant, .tool_calls = {{"abcDEF123", "now", "{}"}}};
  for (const char* file : {"chatml-bare", "zephyr-7b-beta", "vicuna-1.1", "alpaca", "llama-2-chat"}) {
    EXPECT_THAT(refusal(file, {{user, call}, {}}), HasSubstr("turn 2: chat template ")) << file;
    EXPECT_THAT(refusal(file, {{user, answer}, {"{}"}}), HasSubstr("has no place for tools")) << file;
    EXPECT_THAT(refusal(file, {{user}, {}}), HasSubstr("the last turn is not the assistant's")) << file;
    EXPECT_THAT(refusal(file, {}), HasSubstr("without a turn")) << file;
  }
  for (const char* file : {"vicuna-1.1", "alpaca", "llama-2-chat"})
    EXPECT_THAT(refusal(file, {{user, system, answer}, {}}), HasSubstr("turn 2: chat template ")) << file;
  EXPECT_THAT(refusal("llama-2-chat", {{user, user, answer}, {}}), HasSubstr("turn 2: chat template llama-2 has user"));
}

}  // namespace
}  // namespace mixtune
