#include "data/text_encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "data/label.h"
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

TokenSequence completion(const Tokenizer& tokenizer, const PromptCompletion& text, bool train_on_prompt = false) {
  const TextEncoder encoder{.tokenizer = &tokenizer, .train_on_prompt = train_on_prompt};
  return encode_record(text, encoder, "").at(0);
}

int64_t untrained(const TokenSequence& document) {
  const auto trained = std::ranges::find_if(document.labels, [](int32_t label) { return label != kIgnoreTarget; });
  EXPECT_TRUE(std::equal(trained, document.labels.end(), document.ids.end() - (document.labels.end() - trained)));
  return trained - document.labels.begin();
}

TEST(TextEncoder, ACompletionIsTheTextThatItMakesWithItsPrompt) {
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(kTokenizerFixtures);
  for (const PromptCompletion& text :
       {PromptCompletion{"Hello", " world!"}, {"one two", "\nthree"}, {"", "Hello"}, {"Hello", ""}}) {
    const TokenSequence document = completion(*tokenizer, text);
    EXPECT_EQ(document.ids,
              encode_record(Record(text.prompt + text.completion), {.tokenizer = tokenizer.get()}, "").at(0).ids);
    EXPECT_EQ(untrained(document), 1 + static_cast<int64_t>(tokenizer->encode(text.prompt).size())) << text.prompt;
    EXPECT_EQ(untrained(completion(*tokenizer, text, true)), 1);
  }
}

TEST(TextEncoder, ATokenOfPromptAndCompletionIsTrained) {
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(kTokenizerFixtures);
  const std::vector<int32_t> whole = tokenizer->encode("one two");
  ASSERT_EQ(whole.size(), 2u);
  const TokenSequence document = completion(*tokenizer, {"one t", "wo"});
  EXPECT_THAT(document.ids, testing::ElementsAre(tokenizer->bos(), whole[0], whole[1], tokenizer->eos()));
  EXPECT_EQ(untrained(document), 2);
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
