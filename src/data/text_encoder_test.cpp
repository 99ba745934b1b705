#include "data/text_encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace mixtune
