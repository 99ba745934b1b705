// Helpers for tests of chat templates: the cases that scripts/make_template_fixtures.py writes.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/json_value.h"
#include "data/chat_template.h"
#include "data/label.h"
#include "data/record.h"
#include "data/test_folder.h"
#include "data/text_encoder.h"

namespace mixtune {

inline const std::string kTemplateFixtures = source_path("tests/fixtures/templates");

inline nlohmann::json template_cases(const std::string& name) {
  nlohmann::json cases = nlohmann::json::parse(TestFolder::read(kTemplateFixtures + "/" + name + ".json"));
  EXPECT_FALSE(cases.empty());
  return cases;
}

inline Conversation conversation_of(const nlohmann::json& item) {
  Conversation conversation;
  for (const nlohmann::json& turn : item["turns"]) {
    const std::string role = turn["role"];
    conversation.turns.push_back({.role = role == "system"      ? Role::kSystem
                                          : role == "user"      ? Role::kUser
                                          : role == "assistant" ? Role::kAssistant
                                                                : Role::kTool,
                                  .text = turn["text"],
                                  .train = turn.value("train", true),
                                  .tool_call_id = turn.value("tool_call_id", ""),
                                  .name = turn.value("name", "")});
    for (const nlohmann::json& call : turn.value("tool_calls", nlohmann::json::array()))
      conversation.turns.back().tool_calls.push_back(
          {.id = call["id"], .name = call["name"], .arguments = call["arguments"]});
  }
  conversation.tools = item.value("tools", std::vector<std::string>());
  return conversation;
}

// Expects the ids, trained tokens and prompts of `item`, or that it is refused.
inline void expect_template_case(const TextEncoder& encoder, const nlohmann::json& item) {
  const Conversation conversation = conversation_of(item);
  if (item.contains("refused")) {
    EXPECT_NE(user_error([&] { encode_conversation(encoder, conversation, "a.jsonl:7"); }).find("a.jsonl:7"),
              std::string::npos)
        << item;
    return;
  }
  if (item.contains("prompt")) {
    EXPECT_EQ(encode_prompt(encoder, conversation, ""), item["prompt"].get<std::vector<int32_t>>()) << item;
    return;
  }
  const TokenSequence sequence = encode_conversation(encoder, conversation, "");
  ASSERT_EQ(sequence.ids, item["ids"].get<std::vector<int32_t>>()) << item;
  std::vector<int> trained;
  for (size_t i = 0; i < sequence.labels.size(); ++i) {
    trained.push_back(sequence.labels[i] != kIgnoreTarget);
    EXPECT_EQ(sequence.labels[i], trained.back() ? sequence.ids[i] : kIgnoreTarget);
  }
  EXPECT_EQ(trained, item["trained"].get<std::vector<int>>()) << item;
}

}  // namespace mixtune
