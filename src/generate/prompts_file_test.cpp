#include "generate/prompts_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "base/temp_folder.h"

namespace mixtune {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class PromptsFile : public testing::Test {
 protected:
  std::vector<Prompt> read(const std::string& content) {
    const std::string path = folder_.path() / "prompts.jsonl";
    std::ofstream(path, std::ios::binary) << content;
    return read_prompts(path);
  }
  std::vector<std::string> texts(const std::string& content) {
    std::vector<std::string> texts;
    for (const Prompt& prompt : read(content)) texts.push_back(prompt.text);
    return texts;
  }

  TempFolder folder_;
};

TEST_F(PromptsFile, HasStringsAndObjects) {
  EXPECT_THAT(texts("\"one\"\n\n{\"prompt\": \"two\\n2\", \"completion\": 3}\r\n\"\"\n\"caf\xC3\xA9\""),
              ElementsAre("one", "two\n2", "", "caf\xC3\xA9"));
  EXPECT_THAT(texts("\xEF\xBB\xBF{\"prompt\": \"one\"}"), ElementsAre("one"));
  EXPECT_THAT(texts("[{\"prompt\": \"one\"},\n {\"prompt\": \"two\"}]"), ElementsAre("one", "two"));
  EXPECT_THAT(read("\"one\"\n\n\"two\"")[1].where, HasSubstr("prompts.jsonl:3"));
}

TEST_F(PromptsFile, AFaultIsNamedByItsLine) {
  struct Fault {
    std::string content, part;
  };
  for (const Fault& fault : std::initializer_list<Fault>{{"", "no prompt"},
                                                         {"\n \n", "no prompt"},
                                                         {"\"a\"\n3", "prompts.jsonl:2: is neither"},
                                                         {"\"a\"\nnull", "prompts.jsonl:2"},
                                                         {"\"a\"\n[\"b\"]", "prompts.jsonl:2"},
                                                         {"\"a\"\n{\"text\": \"b\"}", "'prompt' is missing"},
                                                         {"{\"prompt\": [\"b\"]}", "not a string"},
                                                         {"{\"prompt\": \"a\", \"prompt\": \"b\"}", "prompts.jsonl:1"},
                                                         {"once upon", "prompts.jsonl:1"},
                                                         {"\"a", "prompts.jsonl:1"},
                                                         {"\"a\" \"b\"", "prompts.jsonl:1"},
                                                         {"\"\xFF\"", "prompts.jsonl:1"},
                                                         {std::string("\"a\0\"", 4), "prompts.jsonl:1"}}) {
    try {
      read(fault.content);
      ADD_FAILURE() << fault.content;
    } catch (const UserError& error) {
      EXPECT_THAT(error.what(), HasSubstr(fault.part)) << fault.content;
    }
  }
  EXPECT_THROW(read_prompts(folder_.path()), UserError);
}

}  // namespace
}  // namespace mixtune
