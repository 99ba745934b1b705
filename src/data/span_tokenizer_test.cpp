#include "data/span_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/test_folder.h"

namespace mixtune {
namespace {

using testing::ElementsAre;

std::vector<std::string> texts(const std::vector<TextSpan>& spans) {
  std::vector<std::string> out;
  for (const TextSpan& span : spans) out.push_back((span.special ? "!" : "") + std::string(span.text));
  return out;
}

TEST(SplitSpecial, PartsAtTheNamesOfControlTokens) {
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(kTokenizerFixtures);
  EXPECT_THAT(texts(tokenizer->split_special("a <s></s>b<s")), ElementsAre("a ", "!<s>", "!</s>", "b<s"));
  EXPECT_THAT(texts(tokenizer->split_special("none")), ElementsAre("none"));
  EXPECT_THAT(texts(tokenizer->split_special("")), ElementsAre());
  EXPECT_EQ(tokenizer->special_id("</s>"), 2);
  EXPECT_EQ(tokenizer->special_id("<0x0A>"), std::nullopt);
}

TEST(EncodeSpans, NeighboursThatAreNotSpecialAreOneText) {
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(kTokenizerFixtures);
  const TextSpan parted[] = {{"Hel"}, {"lo, wo"}, {""}, {"rld"}};
  EXPECT_EQ(tokenizer->encode_spans(parted).ids, tokenizer->encode("Hello, world"));
  EXPECT_TRUE(tokenizer->encode_spans({}).ids.empty());
}

TEST(EncodeSpans, SayWhereEachTokenBegins) {
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(kTokenizerFixtures);
  const TextSpan spans[] = {{"<s>", true}, {"Hi \xF0\x9F\xA4\x97<s>"}, {"</s>", true}};
  const EncodedSpans encoded = tokenizer->encode_spans(spans);
  std::vector<std::string> pieces;
  for (const int32_t id : encoded.ids) pieces.push_back(tokenizer->piece(id));
  EXPECT_THAT(pieces, ElementsAre("<s>", "\xE2\x96\x81Hi", "\xE2\x96\x81", "<0xF0>", "<0x9F>", "<0xA4>", "<0x97>", "<",
                                  "s", ">", "</s>"));
  EXPECT_THAT(encoded.begins, ElementsAre(0, 3, 5, 6, 6, 6, 6, 10, 11, 12, 13));
}

TEST(WhiteSpace, IsUnicodes) {
  EXPECT_EQ(leading_space(" \t\xC2\xA0\xE3\x80\x80x "), 7u);
  EXPECT_EQ(trailing_space("x \t\xC2\xA0\xE2\x80\xA8"), 7u);
  EXPECT_EQ(leading_space("\xE2\x80\x8B"), 0u);  // zero width
  EXPECT_EQ(trailing_space(""), 0u);
}

}  // namespace
}  // namespace mixtune
