#include "data/mistral_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "data/template_fixtures.h"

namespace mixtune {
namespace {

using testing::HasSubstr;

class MistralTemplateTest : public testing::Test {
 protected:
  TextEncoder encoder(ChatTemplateName name) const {
    return {.tokenizer = tokenizer_.get(), .chat_template = {.name = name}};
  }

  std::string refusal(ChatTemplateName name, const Conversation& conversation) const {
    return user_error([&] { encode_conversation(encoder(name), conversation, "a.jsonl:7"); });
  }

  const std::unique_ptr<Tokenizer> tokenizer_ = open_tokenizer(kTemplateFixtures + "/mistral");
};

TEST_F(MistralTemplateTest, Version2IsMistralCommons) {
  for (const auto& item : template_cases("mistral-v2"))
    expect_template_case(encoder(ChatTemplateName::kMistralV2), item);
}

TEST_F(MistralTemplateTest, Version3IsMistralCommons) {
  for (const auto& item : template_cases("mistral-v3"))
    expect_template_case(encoder(ChatTemplateName::kMistralV3), item);
}

// A tokeniser of Mixtral-8x22B-Instruct's kind: [INST] is token 3, and no space stands before [/INST].
TEST_F(MistralTemplateTest, MarksAreControlTokens) {
  const TokenSequence sequence = encode_conversation(
      encoder(ChatTemplateName::kMistralV3),
      {.turns = {{.role = Role::kUser, .text = "Hi"}, {.role = Role::kAssistant, .text = "Yo"}}}, "");
  std::vector<int32_t> ids = {1, 3};
  for (const int32_t id : tokenizer_->encode("Hi")) ids.push_back(id);
  ids.push_back(4);
  for (const int32_t id : tokenizer_->encode("Yo")) ids.push_back(id);
  ids.push_back(2);
  EXPECT_EQ(sequence.ids, ids);
}

TEST_F(MistralTemplateTest, SaysWhyItRefuses) {
  const Turn user = {.role = Role::kUser, .text = "q"}, answer = {.role = Role::kAssistant, .text = "a"};
  const Turn call = {.role = Role::kAssistant, .tool_calls = {{"abcDEF123", "now", "{}"}}};
  const Turn result = {.role = Role::kTool, .text = "1", .tool_call_id = "abcDEF123"};
  const auto v1 = ChatTemplateName::kMistralV1, v2 = ChatTemplateName::kMistralV2, v3 = ChatTemplateName::kMistralV3;
  EXPECT_THAT(refusal(v1, {{user, call, result, answer}, {}}), HasSubstr("mistral-v1 has no place for tools"));
  EXPECT_THAT(refusal(v1, {{user, answer}, {"{}"}}), HasSubstr("mistral-v1 has no place for tools"));
  EXPECT_THAT(refusal(v3, {{user, answer}, {"{}"}}), HasSubstr("a tool without a 'function'"));
  EXPECT_THAT(refusal(v3, {{user, answer}, {R"({"function": {"name": "f", "returns": {}}})"}}),
              HasSubstr("a tool with 'returns', which"));
  EXPECT_THAT(refusal(v3, {{user, answer, result}, {}}), HasSubstr("turn 3: a tool's turn that answers no call"));
  EXPECT_THAT(refusal(v3, {{user, call, answer}, {}}), HasSubstr("turn 3: an answer while 1 of the calls"));
  EXPECT_THAT(refusal(v3, {{user, {.role = Role::kAssistant, .text = "a", .tool_calls = call.tool_calls}}, {}}),
              HasSubstr("turn 2: an assistant's turn with text and tool calls"));
  Conversation two = {{user, call, result, result, answer}, {}};
  two.turns[1].tool_calls.push_back(call.tool_calls[0]);
  EXPECT_EQ(refusal(v3, two), "");
  EXPECT_THAT(refusal(v2, two), HasSubstr("turn 4: chat template mistral-v2 has one result"));
}

// Of adjacent answers, those that are all trained, or all not, become one.
TEST_F(MistralTemplateTest, AnswersThatAreNotTrainedStandApart) {
  const TokenSequence sequence =
      encode_conversation(encoder(ChatTemplateName::kMistralV3),
                          {.turns = {{.role = Role::kUser, .text = "q"},
                                     {.role = Role::kAssistant, .text = "no", .train = false},
                                     {.role = Role::kAssistant, .text = "yes"}}},
                          "");
  EXPECT_EQ(std::ranges::count(sequence.ids, 2), 2);
  EXPECT_EQ(std::ranges::count(sequence.labels, 2), 1);
}

}  // namespace
}  // namespace mixtune
