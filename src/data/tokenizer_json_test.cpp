#include "data/tokenizer_json.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/json_value.h"
#include "data/test_folder.h"
#include "data/tokenizer.h"

namespace mixtune {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

class TokenizerJsonTest : public testing::Test {
 protected:
  // The refusal of the small tokenizer.json with `patch` (RFC 7396) merged into it.
  std::string refusal(const json& patch) const {
    json file = small_;
    file.merge_patch(patch);
    return said(file.dump());
  }
  // The file with the value at `pointer` replaced.
  std::string with(const std::string& pointer, const json& value) const {
    json file = small_;
    file[json::json_pointer(pointer)] = value;
    return said(file.dump());
  }
  static std::string said(const std::string& text) {
    return user_error([&] { parse_tokenizer_json(text, "T"); });
  }

  const json small_ = json::parse(TestFolder::read(source_path("tests/fixtures/tokenizer_folders/small.json")));
};

TEST_F(TokenizerJsonTest, RefusesOtherKindsByName) {
  const auto refused = [&](const json& patch, const std::string& what) {
    EXPECT_THAT(refusal(patch), HasSubstr("T: has " + what + ", which is not supported"));
  };
  EXPECT_EQ(refusal(json::object()), "");
  for (const char* type : {"Unigram", "WordPiece", "WordLevel"})
    refused({{"model", {{"type", type}}}}, fmt::format("model '{}'", type));
  refused({{"model", {{"dropout", 0.1}}}}, "'dropout' that is set");
  refused({{"model", {{"end_of_word_suffix", "</w>"}}}}, "'end_of_word_suffix' that is set");
  refused({{"model", {{"continuing_subword_prefix", "##"}}}}, "'continuing_subword_prefix' that is set");
  refused({{"model", {{"speed", 1}}}}, "'speed' in model");
  refused({{"encoder", 1}}, "'encoder' in the file");
  refused({{"truncation", {{"max_length", 8}}}}, "'truncation' that is set");
  refused({{"padding", {{"pad_id", 0}}}}, "'padding' that is set");
  for (const char* type : {"NFC", "NFKC", "Lowercase", "Strip", "Precompiled", "ByteLevel"})
    refused({{"normalizer", {{"type", type}}}}, fmt::format("normalizer '{}'", type));
  for (const char* type : {"ByteLevel", "Split", "Whitespace", "Digits", "Punctuation"}) {
    refused({{"pre_tokenizer", {{"type", type}}}}, fmt::format("pre_tokenizer '{}'", type));
    EXPECT_THAT(with("/pre_tokenizer/pretokenizers/0", {{"type", type}}), HasSubstr(type));
  }
  refused({{"post_processor", {{"type", "ByteLevel"}}}}, "post_processor 'ByteLevel'");
  for (const char* type : {"ByteLevel", "WordPiece", "CTC"})
    refused({{"decoder", {{"type", type}}}}, fmt::format("decoder '{}'", type));
}

TEST_F(TokenizerJsonTest, RefusesOtherSettingsOfKnownParts) {
  EXPECT_THAT(with("/normalizer/normalizers/0/content", "_"), HasSubstr("normalizer '{\"content\":\"_\""));
  EXPECT_THAT(with("/normalizer/normalizers/1/pattern/Regex", "a+"), HasSubstr("\"Regex\":\"a+\""));
  EXPECT_THAT(with("/pre_tokenizer/pretokenizers/0/replacement", "_"), HasSubstr("replacement '_'"));
  EXPECT_THAT(with("/pre_tokenizer/pretokenizers/0/prepend_scheme", "last"), HasSubstr("prepend_scheme 'last'"));
  EXPECT_THAT(with("/pre_tokenizer/pretokenizers/0/add_prefix_space", false), HasSubstr("'prepend_scheme' is not"));
  EXPECT_THAT(with("/decoder/decoders/3/start", 2), HasSubstr("decoder '{\"content\":\" \",\"start\":2"));
  EXPECT_THAT(with("/decoder/decoders/0/content", "_"), HasSubstr("decoder '{\"content\":\"_\""));
  EXPECT_THAT(with("/added_tokens/0/single_word", true), HasSubstr("'<unk>' has single_word, which is not supported"));
}

TEST_F(TokenizerJsonTest, RefusesAVocabularyThatIsNotSound) {
  EXPECT_THAT(said("{}"), HasSubstr("the file has no 'model'"));
  EXPECT_THAT(said("[]"), HasSubstr("is not a JSON object"));
  EXPECT_THAT(said("{\"model\": " + std::string(40, '[')), HasSubstr("nests deeper"));
  EXPECT_THAT(said(std::string(9 << 20, ',')), HasSubstr("holds more than"));
  EXPECT_THAT(with("/model/vocab", json::array()), HasSubstr("'vocab' is not an object"));
  EXPECT_THAT(with("/model/vocab/a", 5), AllOf(HasSubstr("'a'"), HasSubstr("have one id, 5")));
  EXPECT_THAT(with("/model/vocab/new", 5000), HasSubstr("the id of the piece 'new' is none of 0 to"));
  EXPECT_THAT(with("/model/vocab/a", -1), HasSubstr("the id of the piece 'a' is none of"));
  EXPECT_THAT(with("/model/vocab/", 3), HasSubstr("has a piece of 0 bytes"));
  EXPECT_THAT(with("/model/vocab/" + std::string(1025, 'x'), 3), HasSubstr("has a piece of 1025 bytes"));
  EXPECT_THAT(with("/model/merges/0", "a b c"), HasSubstr("the merge 'a b c' is not two pieces"));
  EXPECT_THAT(with("/model/merges/0", {"a"}), HasSubstr("merge 0 is not two pieces"));
  EXPECT_THAT(with("/model/merges/7", {"a", "zzz"}), HasSubstr("merge 7 needs 'zzz', which is not a piece"));
  EXPECT_THAT(with("/model/merges/7", "q z"), HasSubstr("merge 7 needs 'qz', which is not a piece"));
  json no_byte = small_;
  no_byte["model"]["vocab"]["x0A"] = no_byte["model"]["vocab"]["<0x0A>"];
  no_byte["model"]["vocab"].erase("<0x0A>");
  EXPECT_THAT(said(no_byte.dump()), HasSubstr("there is no piece <0x0A>"));
  EXPECT_THAT(refusal({{"model", {{"byte_fallback", false}, {"unk_token", "<none>"}}}}), HasSubstr("'<none>' is not"));
  EXPECT_THAT(refusal({{"model", {{"byte_fallback", false}, {"unk_token", nullptr}}}}), HasSubstr("no 'unk_token'"));
  EXPECT_THAT(with("/added_tokens/0/id", 1e9), HasSubstr("is no token's"));
}

TEST_F(TokenizerJsonTest, AddedTokensAgreeWithThePieces) {
  const auto opened = [&](const json& added) {
    json file = small_;
    file["added_tokens"] = added;
    const TestFolder folder;
    folder.write("tokenizer.json", file.dump());
    return user_error([&] { const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(folder.path()); });
  };
  const json first = {{"id", 1}, {"content", "<s>"}}, second = {{"id", 2}, {"content", "</s>"}};
  EXPECT_EQ(opened({first, second}), "");
  EXPECT_THAT(opened({first, {{"id", 2}, {"content", "<s>"}}}), HasSubstr("gives '<s>' the id 2"));
  EXPECT_THAT(opened({first, {{"id", 2}, {"content", "</S>"}}}), HasSubstr("says that 2 is '</S>'"));
  EXPECT_THAT(opened({first, second, {{"id", 5000}, {"content", "<x>"}}}), HasSubstr("no token has the id 9"));
  EXPECT_THAT(opened(json::array({first})), HasSubstr("has no BOS or no EOS token"));
}

TEST_F(TokenizerJsonTest, DecodesWhatItEncoded) {
  const TestFolder folder;
  folder.write("tokenizer.json", small_.dump());
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->kind(), "tokenizer.json");
  for (const std::string text : {"Hello, world!", "  spaces  \n\ttab\n", "\xF0\x9F\xA4\x97 <s>[INST]</s>", ""})
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  EXPECT_EQ(tokenizer->decode({{1, 3 + 0xC3, 2}}), "\xEF\xBF\xBD");  // a byte of a character that is cut
}

TEST_F(TokenizerJsonTest, IsUsedWhereThereIsATokenizerModelToo) {
  const TestFolder folder;
  folder.write("tokenizer.json", small_.dump());
  folder.write("tokenizer.model", TestFolder::read(source_path("examples/quickstart/tokenizer.model")));
  const auto opened = [&] {
    const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(folder.path());
  };
  EXPECT_THAT(user_error(opened),
              AllOf(HasSubstr("tokenizer.json: says that 900 is"), HasSubstr("tokenizer.model beside it says")));
}

}  // namespace
}  // namespace mixtune
