#include "data/text_encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "data/test_folder.h"

namespace mixtune {
namespace {

TEST(TextEncoder, EncodesText) {
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(kTokenizerFixtures);
  const std::vector<TokenSequence> documents = encode_record(Record("Hello"), {.tokenizer = tokenizer.get()}, "");
  ASSERT_EQ(documents.size(), 1u);
  std::vector<int32_t> ids = tokenizer->encode("Hello");
  ids.insert(ids.begin(), tokenizer->bos());
  ids.push_back(tokenizer->eos());
  EXPECT_EQ(documents[0].ids, ids);
  ids[0] = kIgnoreTarget;
  EXPECT_EQ(documents[0].labels, ids);
}

TEST(TextEncoder, TextNeedsATokenizerAndTokensDoNot) {
  EXPECT_THAT(user_error([] { encode_record(Record("Hello"), {}, "a.jsonl:7"); }),
              testing::HasSubstr("set tokenizer_name_or_path"));
  const Record tokens = TokenizedRecord{{.ids = {1, 2}, .labels = {1, 2}}};
  EXPECT_THAT(encode_record(tokens, {}, "").at(0).ids, testing::ElementsAre(1, 2));
}

TEST(TextEncoder, ParsedTextHasOneBosAndEos) {
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(kTokenizerFixtures);
  const TextEncoder encoder = {.tokenizer = tokenizer.get(), .parse_special_tokens = true};
  const auto ids = [&](const char* text) {
    return encode_record(Record(text), encoder, "").at(0).ids;
  };
  for (const char* text : {"<s>Hello</s>", "Hello", "<s>Hello", "Hello</s>"})
    EXPECT_EQ(ids(text), ids("Hello")) << text;
  EXPECT_THAT(ids(""), testing::ElementsAre(1, 2));
  EXPECT_THAT(ids("<s>"), testing::ElementsAre(1, 2));
  EXPECT_THAT(ids("</s>"), testing::ElementsAre(1, 2));
  EXPECT_EQ(std::ranges::count(ids("Hello</s><s>Hello"), 2), 2);
  const TokenSequence document = encode_record(Record("<s>Hello</s>"), encoder, "").at(0);
  EXPECT_EQ(document.labels.front(), kIgnoreTarget);
  EXPECT_EQ(std::ranges::count(document.labels, kIgnoreTarget), 1);
}

TEST(TextEncoder, CountsSpecialTokensInTextAndTurns) {
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(kTokenizerFixtures);
  const SpeltSpecials text = spelt_specials(Record("a</s>b<s></s>"), *tokenizer);
  EXPECT_EQ(text.count, 3);
  EXPECT_EQ(text.first, "</s>");
  EXPECT_EQ(spelt_specials(Record("[INST] a [/INST]"), *tokenizer).count, 0);
  const Conversation turns = {
      .turns = {{.role = Role::kUser, .text = "<s>"}, {.role = Role::kAssistant, .text = "</s>"}}};
  EXPECT_EQ(spelt_specials(Record(turns), *tokenizer).count, 2);
  EXPECT_EQ(spelt_specials(Record(TokenizedRecord{{.ids = {1}, .labels = {1}}}), *tokenizer).count, 0);
}

}  // namespace
}  // namespace mixtune
