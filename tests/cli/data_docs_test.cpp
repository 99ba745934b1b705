// docs/data.md: every block of JSON on the page goes through `mixtune preprocess`. The block after it says what comes
// out: "ids:" and "labels:" of each document, "warning:" and "error:" without the place and the program's name.
#include <fmt/format.h>
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

struct Example {
  int line = 0;
  std::string records, stated;
};

void PrintTo(const Example& example, std::ostream* out) {
  *out << example.records;
}

std::vector<Example> examples_of_page() {
  std::vector<Example> examples;
  std::istringstream lines(read(source_path("docs/data.md")));
  std::string* block = nullptr;  // the one being read
  bool open = false, after_json = false;
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (!line.starts_with("```")) {
      if (block) *block += line + "\n";
      continue;
    }
    open = !open;
    block = nullptr;
    if (!open) continue;
    if (line == "```json") examples.push_back({.line = number});
    if (line == "```json") block = &examples.back().records;
    if (line == "```" && after_json) block = &examples.back().stated;
    after_json = line == "```json";
  }
  return examples;
}

// What the program wrote and logged, in the page's form.
std::string said(const Outcome& outcome, const std::string& tokens) {
  std::string text;
  std::istringstream lines(tokens), messages(outcome.err);
  for (std::string line; std::getline(lines, line);) {
    const auto document = nlohmann::json::parse(line);
    text += fmt::format("ids:    {}\nlabels: {}\n", document["input_ids"].dump(), document["labels"].dump());
    if (document.contains("loss_mask")) text += fmt::format("weights: {}\n", document["loss_mask"].dump());
  }
  const std::regex place("^mixtune: (warning|error): data\\.jsonl(:\\d+)?(: |, )(.*)$");
  for (std::string line; std::getline(messages, line);)
    if (std::smatch match; std::regex_match(line, match, place))
      text += fmt::format("{}: {}\n", match[1].str(), match[4].str());
  return std::regex_replace(text, std::regex(",(-?\\d)"), ", $1");
}

class DataExample : public testing::TestWithParam<Example> {};

TEST_P(DataExample, BecomesWhatThePageStates) {
  const TempFolder work;
  write(work.path() / "data.jsonl", GetParam().records);
  const Outcome outcome = run_mixtune({"preprocess", "--train_file", "data.jsonl", "--tokenizer_name_or_path",
                                       source_path("tests/fixtures/tokenizer"), "--output", "out.jsonl"},
                                      work.path());
  const bool refused = GetParam().stated.starts_with("error: ");
  EXPECT_EQ(outcome.code, refused ? 2 : 0) << outcome.err;
  EXPECT_EQ(std::filesystem::exists(work.path() / "out.jsonl"), !refused);
  EXPECT_EQ(said(outcome, refused ? "" : read(work.path() / "out.jsonl")), GetParam().stated);
}

std::string name_of_example(const testing::TestParamInfo<Example>& info) {
  return fmt::format("line_{}", info.param.line);
}

INSTANTIATE_TEST_SUITE_P(Docs, DataExample, testing::ValuesIn(examples_of_page()), name_of_example);

TEST(DataExamples, AreFoundOnThePage) {
  const std::vector<Example> examples = examples_of_page();
  EXPECT_GT(examples.size(), 20u);
  for (const Example& example : examples) EXPECT_NE(example.stated, "") << example.records;
}

}  // namespace
}  // namespace mixtune
