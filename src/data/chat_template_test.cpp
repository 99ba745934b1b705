#include "data/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/json_value.h"
#include "data/formats.h"
#include "data/label.h"
#include "data/test_folder.h"
#include "data/text_encoder.h"

namespace mixtune {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// Fixtures made by mistral-common alone: scripts/make_tokenizer_fixtures.py.
json chat_fixture(const std::string& name) {
  json cases = json::parse(TestFolder::read(kTokenizerFixtures + "/" + name));
  EXPECT_FALSE(cases.empty());
  return cases;
}

Conversation conversation(const json& record) {
  UnreadKeys unread;
  return std::get<Conversation>(parse_record(record, DatasetFormat::kMessages, "fixture", unread));
}

Conversation turns(const std::vector<std::pair<Role, std::string>>& texts) {
  Conversation conversation;
  for (const auto& [role, text] : texts) conversation.turns.push_back({.role = role, .text = text});
  return conversation;
}

class ChatTemplateTest : public testing::Test {
 protected:
  TokenSequence encode(const Conversation& conversation, bool train_on_prompt = false) {
    return encode_conversation({.tokenizer = tokenizer_.get(), .train_on_prompt = train_on_prompt}, conversation,
                               "a.jsonl:7");
  }

  std::string refusal(const Conversation& conversation) {
    return user_error([&] { encode(conversation); });
  }

  const std::unique_ptr<Tokenizer> tokenizer_ = open_tokenizer(kTokenizerFixtures);
};

TEST_F(ChatTemplateTest, TokensAndTrainedTokensAreMistralCommons) {
  for (const json& item : chat_fixture("conversations.json")) {
    const TokenSequence sequence = encode(conversation(item));
    EXPECT_EQ(sequence.ids, item["ids"].get<std::vector<int32_t>>()) << item["messages"];
    std::vector<int> trained;
    for (size_t i = 0; i < sequence.labels.size(); ++i) {
      trained.push_back(sequence.labels[i] != kIgnoreTarget);
      EXPECT_EQ(sequence.labels[i], trained.back() ? sequence.ids[i] : kIgnoreTarget);
    }
    EXPECT_EQ(trained, item["trained"].get<std::vector<int>>()) << item["messages"];
  }
}

TEST_F(ChatTemplateTest, RefusesWhatMistralCommonRefuses) {
  for (const json& item : chat_fixture("refused.json"))
    EXPECT_THAT(refusal(conversation(item)), HasSubstr("a.jsonl:7")) << item;
}

TEST_F(ChatTemplateTest, PromptsAreMistralCommons) {
  for (const json& item : chat_fixture("prompts.json"))
    EXPECT_EQ(encode_prompt({.tokenizer = tokenizer_.get()}, conversation(item), ""),
              item["ids"].get<std::vector<int32_t>>())
        << item["messages"];
}

TEST_F(ChatTemplateTest, ShapeOfATurn) {
  const TokenSequence sequence = encode(turns({{Role::kUser, "Hi"}, {Role::kAssistant, "Yo"}}));
  EXPECT_EQ(sequence.ids.front(), tokenizer_->bos());
  EXPECT_EQ(sequence.ids.back(), tokenizer_->eos());
  EXPECT_EQ(sequence.labels.back(), tokenizer_->eos());
  EXPECT_EQ(tokenizer_->decode(sequence.ids), "[INST] Hi [/INST] Yo");
}

TEST_F(ChatTemplateTest, TrainOnPromptTrainsAllButBos) {
  const TokenSequence sequence = encode(turns({{Role::kUser, "Hi"}, {Role::kAssistant, "Yo"}}), true);
  EXPECT_EQ(sequence.labels.front(), kIgnoreTarget);
  EXPECT_TRUE(std::equal(sequence.ids.begin() + 1, sequence.ids.end(), sequence.labels.begin() + 1));
}

TEST_F(ChatTemplateTest, SaysWhyItRefuses) {
  EXPECT_THAT(refusal(turns({{Role::kUser, "a"}, {Role::kAssistant, ""}})), HasSubstr("turn 2: an empty answer"));
  EXPECT_THAT(refusal(turns({{Role::kUser, "a"}, {Role::kSystem, "b"}, {Role::kAssistant, "c"}})),
              HasSubstr("turn 2: a system turn after"));
  EXPECT_THAT(refusal(turns({{Role::kUser, "a"}})), HasSubstr("the last turn is not the assistant's"));
  EXPECT_THAT(refusal({}), HasSubstr("without a turn"));
  EXPECT_THAT(
      user_error([&] {
        encode_prompt({.tokenizer = tokenizer_.get()}, turns({{Role::kUser, "a"}, {Role::kAssistant, "b"}}), "here");
      }),
      HasSubstr("here: the last turn is not the user's"));
}

}  // namespace
}  // namespace mixtune
