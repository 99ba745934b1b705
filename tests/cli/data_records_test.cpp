// Records as people's files really have them, through `mixtune preprocess`: they give the same tokens as the usual form
// of the same conversation.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "base/json_value.h"
#include "base/test_paths.h"
#include "program.h"

namespace mixtune {
namespace {

using nlohmann::json;
using testing::HasSubstr;

struct Preprocessed {
  std::vector<json> documents;
  std::string err;
};

Outcome preprocess(const TempFolder& work, const std::string& records, const std::vector<std::string>& flags = {}) {
  write(work.path() / "data.jsonl", std::regex_replace(records, std::regex("\\n +"), " "));  // a record is one line
  std::vector<std::string> args = {
      "preprocess", "--train_file", "data.jsonl", "--tokenizer_name_or_path", source_path("tests/fixtures/tokenizer"),
      "--output",   "out.jsonl"};
  args.insert(args.end(), flags.begin(), flags.end());
  return run_mixtune(args, work.path());
}

Preprocessed tokens_of(const std::string& records, const std::vector<std::string>& flags = {}) {
  const TempFolder work;
  const Outcome outcome = preprocess(work, records, flags);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  Preprocessed result{.documents = {}, .err = outcome.err};
  std::istringstream lines(outcome.code == 0 ? read(work.path() / "out.jsonl") : "");
  for (std::string line; std::getline(lines, line);) result.documents.push_back(json::parse(line));
  return result;
}

std::string refusal(const std::string& records) {
  const TempFolder work;
  const Outcome outcome = preprocess(work, records);
  EXPECT_EQ(outcome.code, 2) << outcome.err;
  EXPECT_FALSE(std::filesystem::exists(work.path() / "out.jsonl"));
  return outcome.err;
}

void expect_same(const std::string& records, const std::string& usual) {
  const Preprocessed got = tokens_of(records);
  EXPECT_EQ(got.documents, tokens_of(usual).documents) << records;
  EXPECT_FALSE(got.documents.empty());
  EXPECT_THAT(got.err, testing::Not(HasSubstr("warning"))) << records;
}

constexpr const char* kUsual =
    R"({"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "welcome"}]})";

TEST(DataRecords, ContentPartsAreTheirText) {
  expect_same(R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]},
                 {"role": "assistant", "content": [{"type": "text", "text": "welcome"}]}]})",
              kUsual);
}

TEST(DataRecords, EitherDialectMayStandUnderEitherName) {
  expect_same(
      R"({"conversations": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "welcome"}]})",
      kUsual);
  expect_same(R"({"messages": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "welcome"}]})", kUsual);
}

TEST(DataRecords, NullColumnsAreAbsent) {
  expect_same(R"({"messages": null, "text": "the heron wades"})"
              "\n"
              R"({"messages": null, "text": "the carp waits"})",
              R"({"text": "the heron wades"})"
              "\n"
              R"({"text": "the carp waits"})");
  expect_same(R"({"instruction": "name a bird", "input": null, "output": "the heron"})"
              "\n"
              R"({"instruction": null, "input": "name a fish", "output": "the carp"})",
              R"({"instruction": "name a bird", "output": "the heron"})"
              "\n"
              R"({"input": "name a fish", "output": "the carp"})");
}

TEST(DataRecords, ASystemColumnIsASystemTurn) {
  expect_same(R"({"system": "Answer quietly.", "conversations": [{"from": "human", "value": "hello"},
                 {"from": "gpt", "value": "welcome"}]})",
              R"({"messages": [{"role": "system", "content": "Answer quietly."}, {"role": "user", "content": "hello"},
                 {"role": "assistant", "content": "welcome"}]})");
  expect_same(R"({"instruction": "name a bird", "input": "", "output": "the heron", "system": "Answer quietly."})",
              R"({"messages": [{"role": "system", "content": "Answer quietly."},
                 {"role": "user", "content": "name a bird"}, {"role": "assistant", "content": "the heron"}]})");
}

// Two answers, the first with `flag`.
std::string two_answers(const std::string& flag) {
  return R"({"messages": [{"role": "user", "content": "what is the sum"},
             {"role": "assistant", "content": "five clearly")" +
         flag + R"(}, {"role": "user", "content": "check"}, {"role": "assistant", "content": "four"}]})";
}

TEST(DataRecords, AnAnswerThatIsFlaggedIsSeenAndNotTrained) {
  const json all = tokens_of(two_answers("")).documents.at(0);
  const size_t first =
      tokens_of(R"({"instruction": "what is the sum", "output": "five clearly"})").documents.at(0)["input_ids"].size();
  json expected = all["labels"];
  for (size_t i = 0; i < first; ++i) expected[i] = -100;
  ASSERT_NE(expected, all["labels"]);
  for (const char* flag : {R"(, "train": false)", R"(, "trainable": false)", R"(, "training": false)",
                           R"(, "loss": false)", R"(, "weight": 0)", R"(, "weight": 0.0)"}) {
    const json document = tokens_of(two_answers(flag)).documents.at(0);
    EXPECT_EQ(document["input_ids"], all["input_ids"]) << flag;
    EXPECT_EQ(document["labels"], expected) << flag;
  }
  EXPECT_EQ(tokens_of(two_answers(R"(, "train": true)")).documents.at(0), all);
}

TEST(DataRecords, APromptThatIsFlaggedIsLeftOutOfTrainOnPrompt) {
  const std::string records =
      R"({"messages": [{"role": "user", "content": "hello", "train": false}, {"role": "assistant", "content": "welcome"}]})";
  EXPECT_EQ(tokens_of(records, {"--train_on_prompt"}).documents, tokens_of(kUsual).documents);
  EXPECT_NE(tokens_of(kUsual, {"--train_on_prompt"}).documents, tokens_of(kUsual).documents);
}

TEST(DataRecords, MasksOfTokensAreLabels) {
  const json document =
      tokens_of(R"({"input_ids": [1, 5, 6, 7, 8, 9, 2], "completion_mask": [0, 0, 0, 0, 1, 1, 1]})").documents.at(0);
  EXPECT_EQ(document["labels"], json({-100, -100, -100, -100, 8, 9, 2}));
}

TEST(DataRecords, ARowPackedElsewhereIsItsDocuments) {
  const Preprocessed packed = tokens_of(R"({"input_ids": [1, 5, 2, 1, 6, 2], "labels": [1, 5, 2, 1, 6, 2],
                                            "position_ids": [0, 1, 2, 0, 1, 2]})");
  ASSERT_EQ(packed.documents.size(), 2u);
  EXPECT_EQ(packed.documents[0]["input_ids"], json({1, 5, 2}));
  EXPECT_EQ(packed.documents[1]["input_ids"], json({1, 6, 2}));
}

TEST(DataRecords, NothingIsDroppedWithoutAWord) {
  EXPECT_THAT(refusal(R"({"tools": [{"name": "f"}], "instruction": "a", "output": "b"})"),
              HasSubstr("data.jsonl:1: chat template mistral-v1 has no place for tools"));
  EXPECT_THAT(refusal(R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [{"name":
                          "f"}]}]})"),
              HasSubstr("has no place for tools"));
  EXPECT_THAT(refusal(R"({"messages": [{"role": "user", "content": "a"}, {"role": "tool", "content": "7"},
                          {"role": "assistant", "content": "b"}]})"),
              HasSubstr("has no place for tools"));
  EXPECT_THAT(tokens_of(R"({"id": 1, "instruction": "a", "output": "b", "category": "c"})").err,
              HasSubstr("warning: data.jsonl: format instruction does not read the keys: category (1), id (1)\n"));
}

}  // namespace
}  // namespace mixtune
