#include "data/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/json_value.h"
#include "data/test_folder.h"

namespace mixtune {
namespace {

using testing::HasSubstr;

class TokenizerTest : public testing::Test {
 protected:
  TestFolder folder_;
};

TEST_F(TokenizerTest, OpensAFolderOrAFile) {
  for (const std::string file : {"", "/tokenizer.model"}) {
    const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(kTokenizerFixtures + file);
    EXPECT_EQ(tokenizer->vocab_size(), 32000);
    EXPECT_EQ(tokenizer->unk(), 0);
    EXPECT_EQ(tokenizer->bos(), 1);
    EXPECT_EQ(tokenizer->eos(), 2);
    EXPECT_EQ(tokenizer->piece(2), "</s>");
    EXPECT_EQ(tokenizer->path(), kTokenizerFixtures + "/tokenizer.model");
  }
}

TEST_F(TokenizerTest, EncodesAsMistralCommonDoes) {
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(kTokenizerFixtures);
  const auto cases = nlohmann::json::parse(TestFolder::read(kTokenizerFixtures + "/texts.json"));
  ASSERT_GT(cases.size(), 10u);
  for (const auto& item : cases)
    EXPECT_EQ(tokenizer->encode(item["text"].get<std::string>()), item["ids"].get<std::vector<int32_t>>())
        << item["text"];
}

TEST_F(TokenizerTest, DecodesWhatItEncoded) {
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(kTokenizerFixtures);
  for (const std::string text : {"Hello, world!", "  spaces  \n\ttab\n", "\xF0\x9F\xA4\x97 <s>[INST]</s>", ""})
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
}

TEST_F(TokenizerTest, ControlTokensDecodeToNothing) {
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(kTokenizerFixtures);
  std::vector<int32_t> ids = tokenizer->encode("one two");
  ids.insert(ids.begin(), tokenizer->bos());
  ids.push_back(tokenizer->eos());
  EXPECT_EQ(tokenizer->decode(ids), "one two");
}

TEST_F(TokenizerTest, SaysWhatToDoWithoutAModel) {
  const auto message = [](const std::string& path) {
    return user_error([&] { const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(path); });
  };
  EXPECT_THAT(message(folder_.path("none")), HasSubstr("no such tokenizer"));
  EXPECT_THAT(message(folder_.path()), HasSubstr("has no tokenizer.model; set tokenizer_name_or_path"));
  const TestFolder tekken;
  tekken.write("tekken.json", "{}");
  EXPECT_THAT(message(tekken.path()), HasSubstr("has tekken.json alone, a tokeniser that is not supported"));
  folder_.write("tokenizer.json", "{}");
  EXPECT_THAT(message(folder_.path()), HasSubstr("tokenizer.json: the file has no 'model'"));
  EXPECT_THAT(message("/dev/zero"), HasSubstr("is not a regular file"));
}

TEST_F(TokenizerTest, AModelIsOfItsFolder) {
  const TestFolder elsewhere;
  const std::string model = elsewhere.write("file", TestFolder::read(kTokenizerFixtures + "/tokenizer.model"));
  std::filesystem::create_symlink(model, folder_.path("tokenizer.model"));
  EXPECT_THAT(user_error([&] { const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(folder_.path()); }),
              HasSubstr("is a link that leads out"));
  EXPECT_EQ(open_tokenizer(folder_.path("tokenizer.model"))->vocab_size(), 32000);  // the user names the file itself
}

TEST_F(TokenizerTest, RefusesCorruptModels) {
  const std::string model = TestFolder::read(kTokenizerFixtures + "/tokenizer.model");
  const auto message = [&](std::string_view content) {
    return user_error([&] {
      const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(folder_.write("tokenizer.model", content));
    });
  };
  EXPECT_THAT(message(""), HasSubstr("is not a sound sentencepiece model"));
  EXPECT_THAT(message("not a model"), HasSubstr("is not a sound sentencepiece model"));
  EXPECT_THAT(message(std::string_view(model).substr(0, model.size() / 2)), HasSubstr("is not a sound"));
  EXPECT_THAT(message(std::string_view(model).substr(1)), HasSubstr("is not a sound"));
  const std::string large = folder_.write("tokenizer.model", model);
  std::filesystem::resize_file(large, uint64_t{65} << 20);
  EXPECT_THAT(user_error([&] { const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(large); }),
              HasSubstr("is larger than 64 MiB"));
}

}  // namespace
}  // namespace mixtune
