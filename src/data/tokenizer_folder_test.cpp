// Folders of tokenisers, compared with transformers (scripts/make_tokenizer_folder_fixtures.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/json_value.h"
#include "data/test_folder.h"
#include "data/tokenizer.h"

namespace mixtune {
namespace {

using nlohmann::json;

const std::string kFixtures = source_path("tests/fixtures/tokenizer_folders");
const std::string kModel = source_path("examples/quickstart/tokenizer.model");

void write_files(const TestFolder& folder, const json& files) {
  for (const auto& [name, content] : files.items()) {
    json whole = content;
    if (name == "tokenizer.json") {
      whole = json::parse(TestFolder::read(kFixtures + "/small.json"));
      whole.update(content);
    }
    folder.write(name, whole.dump());
  }
  if (!files.contains("tokenizer.json")) folder.write("tokenizer.model", TestFolder::read(kModel));
}

TEST(TokenizerFolders, AreTransformers) {
  const json folders = json::parse(TestFolder::read(kFixtures + "/folders.json"));
  ASSERT_GT(folders.size(), 50u);
  for (const json& item : folders) {
    SCOPED_TRACE(item["name"]);
    const TestFolder folder;
    write_files(folder, item["files"]);
    const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(folder.path());
    EXPECT_EQ(tokenizer->vocab_size(), item["size"]);
    EXPECT_EQ(tokenizer->bos(), item["bos"]);
    EXPECT_EQ(tokenizer->eos(), item["eos"]);
    for (const json& example : item["cases"]) {
      const std::string text = example[0];
      const auto ids = example[1].get<std::vector<int32_t>>(), as_text = example.back().get<std::vector<int32_t>>();
      const std::vector<TextSpan> spans = tokenizer->split_special(text);
      EXPECT_EQ(tokenizer->encode_spans(spans).ids, ids) << example[0];
      EXPECT_EQ(tokenizer->encode(text), as_text) << example[0];
    }
  }
}

}  // namespace
}  // namespace mixtune
