#include "data/tokenizer_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "data/test_folder.h"
#include "data/tokenizer.h"

namespace mixtune {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// A folder with the quickstart's tokeniser, of 4096 pieces.
class TokenizerConfigTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_.write("tokenizer.model", TestFolder::read(source_path("examples/quickstart/tokenizer.model")));
  }

  std::string refusal(const std::map<std::string, std::string>& files) {
    const std::vector<std::string> known = {"tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"};
    for (const std::string& name : known) std::filesystem::remove(folder_.path(name));
    for (const auto& [name, content] : files) folder_.write(name, content);
    return user_error([&] { const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(folder_.path()); });
  }
  std::string added(const std::string& content) { return refusal({{"added_tokens.json", content}}); }
  std::string config(const std::string& content) { return refusal({{"tokenizer_config.json", content}}); }
  std::string decoder(const std::string& content) { return config(R"({"added_tokens_decoder": {)" + content + "}}"); }

  TestFolder folder_;
};

TEST_F(TokenizerConfigTest, IdsFollowThePiecesWithoutAHole) {
  EXPECT_EQ(added(R"({"<a>": 4096, "<b>": 4097})"), "");
  EXPECT_THAT(added(R"({"<a>": 4097})"), HasSubstr("gives '<a>' the id 4097, but no token has the id 4096"));
  EXPECT_THAT(added(R"({"<a>": 4096, "<b>": 4098})"), HasSubstr("no token has the id 4097"));
  EXPECT_THAT(added(R"({"<a>": 2147483648})"), HasSubstr("the id 2147483648, which is no token's"));
  EXPECT_THAT(added(R"({"<a>": 18446744073709551615})"), HasSubstr("which is no token's"));
  EXPECT_THAT(added(R"({"<a>": -1})"), HasSubstr("the id of '<a>' is not a whole number"));
  EXPECT_THAT(added(R"({"<a>": "4096"})"), HasSubstr("the id of '<a>' is not a whole number"));
  EXPECT_THAT(added(R"({"": 4096})"), HasSubstr("added_tokens.json: the id of ''"));
}

TEST_F(TokenizerConfigTest, NamesAndIdsAreUnique) {
  EXPECT_THAT(added(R"({"<a>": 4096, "<b>": 4096})"), HasSubstr("4096 is both '<a>' and '<b>'"));
  EXPECT_THAT(decoder(R"("4096": {"content": "<a>"}, "4097": {"content": "<a>"})"),
              HasSubstr("'<a>' is both 4096 and 4097"));
  EXPECT_EQ(decoder(R"("1": {"content": "<s>", "special": true})"), "");
  EXPECT_THAT(added(R"({"<s>": 4096})"), AllOf(HasSubstr("gives '<s>' the id 4096, in"), HasSubstr("it is 1")));
  EXPECT_THAT(decoder(R"("300": {"content": "<new>"})"), HasSubstr("says that 300 is '<new>', in"));
}

TEST_F(TokenizerConfigTest, FilesAgree) {
  const std::string config =
      R"({"eos_token": "</s>", "added_tokens_decoder": {"4096": {"content": "<a>", "special": true}}})";
  const auto both = [&](const char* name, const char* content) {
    return refusal({{"tokenizer_config.json", config}, {name, content}});
  };
  EXPECT_EQ(both("added_tokens.json", R"({"<a>": 4096})"), "");
  EXPECT_THAT(
      both("added_tokens.json", R"({"<a>": 4097})"),
      AllOf(HasSubstr("added_tokens.json: gives '<a>' the id 4097"), HasSubstr("tokenizer_config.json says 4096")));
  EXPECT_THAT(both("added_tokens.json", R"({"<b>": 4097})"), HasSubstr("tokenizer_config.json does not list it"));
  EXPECT_THAT(both("special_tokens_map.json", R"({"eos_token": {"content": "<a>"}})"),
              AllOf(HasSubstr("says that eos_token is '<a>'"), HasSubstr("tokenizer_config.json says '</s>'")));
}

TEST_F(TokenizerConfigTest, RolesAreOfTokensThatAreThere) {
  EXPECT_THAT(config(R"({"eos_token": "<end>"})"),
              HasSubstr("tokenizer_config.json: names '<end>', which is no token"));
  EXPECT_THAT(config(R"({"additional_special_tokens": ["<end>"]})"), HasSubstr("names '<end>'"));
  EXPECT_EQ(config(R"({"pad_token": "<pad>", "eos_token": null})"), "");
  EXPECT_THAT(config(R"({"bos_token": 1})"), HasSubstr("bos_token is not a token's name"));
  EXPECT_THAT(config(R"({"bos_token": {"content": ""}})"), HasSubstr("bos_token is not a token's name"));
}

TEST_F(TokenizerConfigTest, RefusesWhatIsNotAsItShouldBe) {
  EXPECT_THAT(config("[]"), HasSubstr("tokenizer_config.json: is not a JSON object"));
  EXPECT_THAT(config(R"({"legacy": 1})"), HasSubstr("'legacy' is neither true nor false"));
  EXPECT_THAT(config(R"({"added_tokens_decoder": []})"), HasSubstr("'added_tokens_decoder' is not an object"));
  EXPECT_THAT(decoder(R"("x": {"content": "<a>"})"), HasSubstr("'x' in added_tokens_decoder is not an id"));
  EXPECT_THAT(decoder(R"("4096": "<a>")"), HasSubstr("the token of id 4096 is not an object"));
  EXPECT_THAT(decoder(R"("4096": {"special": true})"), HasSubstr("the token of id 4096 is not a token's name"));
  EXPECT_THAT(decoder(R"("4096": {"content": "<a>", "lstrip": 1})"), HasSubstr("'lstrip' of '<a>' is neither"));
  EXPECT_THAT(decoder(R"("4096": {"content": "<a>", "single_word": true})"), HasSubstr("single_word, which is not"));
  EXPECT_THAT(config(R"({"chat_template": )" + std::string(100, '[') + std::string(100, ']') + "}"),
              HasSubstr("nests deeper"));
}

}  // namespace
}  // namespace mixtune
