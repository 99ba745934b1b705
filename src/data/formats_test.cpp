#include "data/formats.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/test_folder.h"

namespace mixtune {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

Record parse(const char* text, DatasetFormat format = DatasetFormat::kAuto) {
  const json record = json::parse(text);
  return parse_record(record, format == DatasetFormat::kAuto ? detect_format(record, "a.jsonl:7") : format,
                      "a.jsonl:7");
}

std::string refusal(const char* text, DatasetFormat format = DatasetFormat::kAuto) {
  const std::string message = user_error([&] { parse(text, format); });
  EXPECT_THAT(message, testing::StartsWith("a.jsonl:7"));
  return message;
}

TokenSequence one_document(const Record& record) {
  const auto& documents = std::get<TokenizedRecord>(record);
  EXPECT_EQ(documents.size(), 1u);
  return documents.at(0);
}

std::vector<Turn> conversation(const char* text) {
  return std::get<Conversation>(parse(text)).turns;
}

testing::Matcher<Turn> is_turn(Role role, const std::string& text) {
  return AllOf(testing::Field(&Turn::role, role), testing::Field(&Turn::text, text));
}

TEST(Formats, Detects) {
  const auto detect = [](const char* text) {
    return format_name(detect_format(json::parse(text), ""));
  };
  EXPECT_EQ(detect(R"({"messages": []})"), "messages");
  EXPECT_EQ(detect(R"({"conversations": []})"), "messages");
  EXPECT_EQ(detect(R"({"input": "", "output": ""})"), "instruction");
  EXPECT_EQ(detect(R"({"instruction": "", "output": "", "text": ""})"), "instruction");
  EXPECT_EQ(detect(R"({"text": ""})"), "text");
  EXPECT_EQ(detect(R"({"input_ids": [], "text": ""})"), "tokenized");
  for (const char* text : {R"({})", R"({"prompt": "x"})", R"({"output": "x"})"})
    EXPECT_THAT(user_error([&] { detect(text); }), HasSubstr("show none of mixtune's formats")) << text;
}

TEST(Formats, Messages) {
  EXPECT_THAT(
      conversation(R"({"id": 3, "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"},
                               {"role": "assistant", "content": "a", "tool_calls": null, "weight": 1}]})"),
      ElementsAre(is_turn(Role::kSystem, "s"), is_turn(Role::kUser, "u"), is_turn(Role::kAssistant, "a")));
}

TEST(Formats, ShareGpt) {
  EXPECT_THAT(conversation(R"({"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "u"},
                               {"from": "gpt", "value": "a"}]})"),
              ElementsAre(is_turn(Role::kSystem, "s"), is_turn(Role::kUser, "u"), is_turn(Role::kAssistant, "a")));
}

TEST(Formats, MessagesRefused) {
  EXPECT_THAT(refusal(R"({"messages": "x"})"), HasSubstr("'messages' is a string, not a list"));
  EXPECT_THAT(refusal(R"({"messages": ["x"]})"), HasSubstr("turn 1: is not an object"));
  EXPECT_THAT(refusal(R"({"messages": [{"role": "user"}]})"), HasSubstr("turn 1: 'content' is missing"));
  EXPECT_THAT(refusal(R"({"messages": [{"content": "x"}]})"), HasSubstr("turn 1: 'role' is missing"));
  EXPECT_THAT(refusal(R"({"messages": [{"role": "user", "content": null}]})"), HasSubstr("'content' is a null"));
  EXPECT_THAT(refusal(R"({"messages": [{"role": "user", "content": [{"type": "text"}]}]})"),
              HasSubstr("'content' is an array, not a string"));
  EXPECT_THAT(refusal(R"({"messages": [{"role": 5, "content": "x"}]})"), HasSubstr("'role' is 5, not a string"));
  EXPECT_THAT(refusal(R"({"messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": "x"}]})"),
              HasSubstr("turn 2: unknown role 'tool'"));
  EXPECT_THAT(refusal(R"({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]})"),
              HasSubstr("'tool_calls' is not supported"));
  EXPECT_THAT(refusal(R"({"messages": [{"role": "assistant", "content": "x", "weight": 0}]})"), HasSubstr("'weight'"));
  EXPECT_THAT(refusal(R"({"text": "x"})", DatasetFormat::kMessages), HasSubstr("'messages' is missing"));
}

TEST(Formats, Instruction) {
  const auto user = [](const char* text) {
    const std::vector<Turn> turns = conversation(text);
    EXPECT_THAT(turns, ElementsAre(testing::_, is_turn(Role::kAssistant, "o")));
    EXPECT_EQ(turns[0].role, Role::kUser);
    return turns[0].text;
  };
  EXPECT_EQ(user(R"({"input": "i", "output": "o"})"), "i");
  EXPECT_EQ(user(R"({"instruction": "do", "output": "o"})"), "do");
  EXPECT_EQ(user(R"({"instruction": "do", "input": "i", "output": "o"})"), "do\n\ni");
  EXPECT_EQ(user(R"({"instruction": "do", "input": "", "output": "o"})"), "do");
  EXPECT_EQ(user(R"({"instruction": "", "input": "i", "output": "o"})"), "i");
  EXPECT_THAT(refusal(R"({"input": "i"})", DatasetFormat::kInstruction), HasSubstr("'output' is missing"));
  EXPECT_THAT(refusal(R"({"output": "o"})", DatasetFormat::kInstruction), HasSubstr("'input' is missing"));
  EXPECT_THAT(refusal(R"({"instruction": "x", "input": null, "output": "o"})"), HasSubstr("'input' is a null"));
  EXPECT_THAT(refusal(R"({"input": "i", "output": 7})"), HasSubstr("'output' is 7, not a string"));
}

TEST(Formats, Text) {
  EXPECT_EQ(std::get<std::string>(parse(R"({"text": " x\n"})")), " x\n");
  EXPECT_THAT(refusal(R"({"text": ["x"]})"), HasSubstr("'text' is an array, not a string"));
  EXPECT_THAT(refusal(R"({"messages": []})", DatasetFormat::kText), HasSubstr("'text' is missing"));
}

TEST(Formats, Tokenized) {
  const auto tokens = one_document(parse(R"({"input_ids": [1, 5, 2], "labels": [-100, 5, 2]})"));
  EXPECT_THAT(tokens.ids, ElementsAre(1, 5, 2));
  EXPECT_THAT(tokens.labels, ElementsAre(kIgnoreTarget, 5, 2));
  const auto all = one_document(parse(R"({"input_ids": [1, 5], "attention_mask": [1, 1]})"));
  EXPECT_EQ(all.labels, all.ids);
}

TEST(Formats, TokenizedRefused) {
  EXPECT_THAT(refusal(R"({"input_ids": "1 2"})"), HasSubstr("'input_ids' is a string, not a list"));
  EXPECT_THAT(refusal(R"({"input_ids": [1, "2"]})"), HasSubstr("'input_ids' holds a string (entry 1)"));
  EXPECT_THAT(refusal(R"({"input_ids": [1.0]})"), HasSubstr("'input_ids' holds 1.0 (entry 0)"));
  EXPECT_THAT(refusal(R"({"input_ids": [[1]]})"), HasSubstr("'input_ids' holds an array"));
  EXPECT_THAT(refusal(R"({"input_ids": [2147483648]})"), HasSubstr("holds 2147483648"));
  EXPECT_THAT(refusal(R"({"input_ids": [18446744073709551615]})"), HasSubstr("holds 18446744073709551615"));
  EXPECT_THAT(refusal(R"({"input_ids": [-9223372036854775808]})"), HasSubstr("holds -9223372036854775808"));
  EXPECT_THAT(refusal(R"({"input_ids": [1, 2], "labels": [1]})"), HasSubstr("1 labels for 2 input_ids"));
  EXPECT_THAT(refusal(R"({"input_ids": [1], "labels": null})"), HasSubstr("'labels' is a null, not a list"));
  EXPECT_THAT(refusal(R"({"input_ids": [1, 0], "attention_mask": [1, 0]})"), HasSubstr("entries that are not 1"));
  EXPECT_THAT(refusal(R"({"input_ids": [1, 5], "attention_mask": [1]})"),
              HasSubstr("'attention_mask' has 1 entries for 2 input_ids"));
  EXPECT_THAT(refusal(R"({"input_ids": [1], "attention_mask": [1, 1]})"), HasSubstr("2 entries for 1 input_ids"));
}

}  // namespace
}  // namespace mixtune
