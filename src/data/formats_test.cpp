// tests/fixtures/data/*.jsonl: a record a line, and what becomes of it:
//
//   turns   [[role, text, {"train": false, "weight": 0.5, "calls": [[id, name, arguments]], "id": ..., "name": ...}]]
//   tools   [...]
//   text; prompt and completion; ids and labels of each document, which of them continue the record, and the weights
//           of those that have other weights than 0 and 1
//   unread  the keys that are left, as UnreadKeys::text has them; absent: none
//   error   words of the refusal
#include "data/formats.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "data/record_reader.h"
#include "data/test_folder.h"

namespace mixtune {
namespace {

using nlohmann::ordered_json;
using testing::HasSubstr;

const std::string kWhere = "a.jsonl:7";

struct Case {
  std::string name;
  ordered_json json;
};

void PrintTo(const Case& item, std::ostream* out) {
  *out << item.json["record"];
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* file : {"conversations", "tools", "texts", "tokenized"}) {
    RecordReader reader(source_path("tests/fixtures/data/") + file + ".jsonl");
    for (ordered_json record; reader.next(record);) {
      std::string name = std::string(file) + "_" + record["name"].get<std::string>();
      std::ranges::replace_if(
          name, [](unsigned char c) { return !std::isalnum(c); }, '_');
      all.push_back({std::move(name), std::move(record)});
    }
  }
  return all;
}

DatasetFormat format_of(const ordered_json& item) {
  if (!item.contains("format")) return detect_format(item["record"], kWhere);
  for (int format = 0;; ++format)
    if (format_name(static_cast<DatasetFormat>(format)) == item["format"].get<std::string>())
      return static_cast<DatasetFormat>(format);
}

ordered_json describe(const Turn& turn) {
  constexpr std::array kRoles = {"system", "user", "assistant", "tool"};
  ordered_json more = ordered_json::object();
  if (!turn.train) more["train"] = false;
  if (turn.train && turn.weight != 1) more["weight"] = static_cast<double>(turn.weight);
  for (const ToolCall& call : turn.tool_calls) more["calls"].push_back({call.id, call.name, call.arguments});
  if (!turn.tool_call_id.empty()) more["id"] = turn.tool_call_id;
  if (!turn.name.empty()) more["name"] = turn.name;
  ordered_json described = {kRoles[static_cast<size_t>(turn.role)], turn.text};
  if (!more.empty()) described.push_back(more);
  return described;
}

ordered_json describe(const Record& record) {
  ordered_json described;
  if (const auto* conversation = std::get_if<Conversation>(&record)) {
    described["turns"] = ordered_json::array();
    for (const Turn& turn : conversation->turns) described["turns"].push_back(describe(turn));
    if (!conversation->tools.empty()) described["tools"] = conversation->tools;
  } else if (const auto* text = std::get_if<PromptCompletion>(&record)) {
    described = {{"prompt", text->prompt}, {"completion", text->completion}};
  } else if (const auto* documents = std::get_if<TokenizedRecord>(&record)) {
    bool continues = false;
    for (const TokenSequence& document : *documents) {
      described["ids"].push_back(document.ids);
      described["labels"].push_back(document.labels);
      described["continues"].push_back(document.continues);
      if (std::ranges::any_of(document.weights, [](float weight) { return weight != 0 && weight != 1; }))
        described["weights"].push_back(document.weights);
      continues = continues || document.continues;
    }
    if (!continues) described.erase("continues");
  } else {
    described["text"] = std::get<std::string>(record);
  }
  return described;
}

class RecordCase : public testing::TestWithParam<Case> {};

TEST_P(RecordCase, BecomesWhatTheFixtureSays) {
  ordered_json expected = GetParam().json;
  const ordered_json item = expected;
  for (const char* key : {"name", "record", "format"}) expected.erase(key);
  ordered_json described;
  UnreadKeys unread;
  const std::string error =
      user_error([&] { described = describe(parse_record(item["record"], format_of(item), kWhere, unread)); });
  if (expected.contains("error")) {
    EXPECT_THAT(error, testing::AllOf(testing::StartsWith(kWhere), HasSubstr(expected["error"].get<std::string>())));
  } else {
    ASSERT_EQ(error, "");
    if (!unread.empty()) described["unread"] = unread.text();
    EXPECT_EQ(nlohmann::json(described), nlohmann::json(expected));
  }
}

std::string name_of_case(const testing::TestParamInfo<Case>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Data, RecordCase, testing::ValuesIn(cases()), name_of_case);

TEST(RecordCases, AreMany) {
  const std::vector<Case> all = cases();
  EXPECT_GE(all.size(), 120u);
  EXPECT_GE(std::ranges::count_if(all, [](const Case& item) { return item.json.contains("error"); }), 60);
}

TEST(Formats, TakesTheFirstOfSeveralThatARecordShows) {
  const auto detect = [](const char* text) {
    return format_name(detect_format(ordered_json::parse(text), ""));
  };
  EXPECT_EQ(detect(R"({"text": "", "messages": [], "input_ids": []})"), "tokenized");
  EXPECT_EQ(detect(R"({"text": "", "prompt": "", "completion": "", "messages": []})"), "messages");
  EXPECT_EQ(detect(R"({"text": "", "instruction": "", "output": ""})"), "instruction");
  EXPECT_EQ(detect(R"({"prompt": "", "completion": "", "text": ""})"), "prompt_completion");
  EXPECT_EQ(detect(R"({"messages": null, "input_ids": null, "text": ""})"), "text");
}

TEST(UnreadKeys, NamesTheMostFrequentFirstAndNoMoreThanFitALine) {
  UnreadKeys keys;
  EXPECT_TRUE(keys.empty());
  for (const char* key : {"b", "a", "c", "c"}) keys.add(key);
  EXPECT_EQ(keys.text(), "c (2), a (1), b (1)");
  UnreadKeys more;
  for (int i = 0; i < 30; ++i) more.add("key" + std::to_string(10 + i) + std::string(100, 'x'));
  more.add("a");
  more.add("\n\x1b");
  keys.add(more);
  EXPECT_THAT(keys.text(), testing::StartsWith("a (2), c (2), \\x0a\\x1b (1), b (1), key10xxx"));
  EXPECT_THAT(keys.text(), testing::EndsWith("xxx... (1), and 14 more"));
  EXPECT_LT(keys.text().size(), 1200u);
}

TEST(UnreadKeys, KeepsNoMoreNamesThanAFileMayHave) {
  UnreadKeys keys;
  for (int i = 0; i < 5000; ++i) {
    UnreadKeys record;
    record.add(std::to_string(i));
    record.add("0");
    keys.add(record);
  }
  EXPECT_THAT(keys.text(), testing::StartsWith("0 (5001), 1 (1), 10 (1)"));
  EXPECT_THAT(keys.text(), testing::EndsWith(", and many more"));
}

}  // namespace
}  // namespace mixtune
