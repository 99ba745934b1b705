// A decoder's cache changes nothing: held against the whole document, computed at once.
#include "generate/decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/test_paths.h"
#include "generate/continue.h"

namespace mixtune {
namespace {

using Ids = std::vector<int32_t>;

struct Model {
  std::string folder;
  int64_t tokens;  // new ones, from the prompt kPrompt
};

const Ids kPrompt = {1, 17, 30, 5, 5, 60};

Decoder open_decoder(const std::string& folder, const CacheRoom& room) {
  const std::string path = source_path(folder);
  return Decoder(load_mixtral_config(path), {path}, room, {});
}

int32_t likeliest(std::span<const float> logits) {
  return next_token(logits, {}, 0);
}

// The logits of a row: sums in another order. Within 1e-5 where the largest is no more than 2.6.
void expect_same_logits(std::span<const float> actual, std::span<const float> expected, const std::string& where) {
  ASSERT_EQ(actual.size(), expected.size());
  float largest = 0;
  for (const float logit : expected) largest = std::max(largest, std::abs(logit));
  const float bound = 32 * std::numeric_limits<float>::epsilon() * largest;
  for (size_t i = 0; i < actual.size(); ++i) ASSERT_NEAR(actual[i], expected[i], bound) << where << ", id " << i;
}

class DecoderOf : public testing::TestWithParam<Model> {
 protected:
  Decoder decoder(int64_t sequences = 1) const { return open_decoder(GetParam().folder, {sequences, positions()}); }
  int64_t positions() const { return static_cast<int64_t>(kPrompt.size()) + GetParam().tokens; }

  // What the model says after the last token, without a cache.
  static std::vector<float> uncached(Decoder& decoder, const Ids& ids) {
    const std::vector<float> all = decoder.logits(ids);
    return {all.end() - decoder.vocab_size(), all.end()};
  }
};

TEST_P(DecoderOf, EachTokensLogitsAreThoseOfTheWholeDocument) {
  Decoder one = decoder();
  Ids ids = kPrompt;
  std::vector<float> logits = one.extend({{{0, ids}}});
  while (true) {
    const std::vector<float> expected = uncached(one, ids);
    expect_same_logits(logits, expected, std::to_string(ids.size()) + " tokens");
    ASSERT_EQ(likeliest(logits), likeliest(expected)) << ids.size();
    ids.push_back(likeliest(expected));
    if (static_cast<int64_t>(ids.size()) > positions()) return;
    logits = one.extend({{{0, std::span(ids).last(1)}}});
  }
}

// Of unequal lengths, of which some begin later than others, and one goes on by several tokens.
TEST_P(DecoderOf, SequencesDoNotSeeEachOther) {
  Decoder many = decoder(3);
  const Ids other = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, third = {40, 41};
  const auto expect_rows = [&](const std::vector<float>& logits, const std::vector<Ids>& documents) {
    const auto vocab = static_cast<size_t>(many.vocab_size());
    for (size_t i = 0; i < documents.size(); ++i)
      expect_same_logits(std::span(logits).subspan(i * vocab, vocab), uncached(many, documents[i]),
                         "document " + std::to_string(i));
  };
  expect_rows(many.extend({{{2, kPrompt}, {0, third}}}), {kPrompt, third});
  expect_rows(many.extend({{{1, other}, {0, std::span(other).first(3)}}}), {other, {40, 41, 1, 2, 3}});
  expect_rows(many.extend({{{0, std::span(other).last(1)}, {2, std::span(other).first(2)}}}),
              {{40, 41, 1, 2, 3, 12}, {1, 17, 30, 5, 5, 60, 1, 2}});
  EXPECT_EQ(many.length(2), 8);
}

TEST_P(DecoderOf, WhatIsCutIsForgotten) {
  Decoder one = decoder();
  one.extend({{{0, kPrompt}}});
  one.cut(0, 3);
  const Ids changed = {1, 17, 30, 8, 9};
  expect_same_logits(one.extend({{{0, std::span(changed).last(2)}}}), uncached(one, changed), "after a cut");
  one.cut(0, 0);
  expect_same_logits(one.extend({{{0, kPrompt}}}), uncached(one, kPrompt), "from the beginning");
}

TEST_P(DecoderOf, TextsTogetherAreThoseAlone) {
  const TextEnds ends = {.ids = {2}, .most_tokens = 20};
  for (const Sampling& sampling : {Sampling{}, Sampling{.temperature = 1, .seed = 3}}) {
    std::vector<Ids> texts = {kPrompt, {1}, {1, 9, 9, 9, 9, 9, 9, 9, 4}, {3, 11}}, alone = texts;
    Decoder together = open_decoder(GetParam().folder, {4, 40}), single = open_decoder(GetParam().folder, {1, 40});
    std::vector<size_t> heard(texts.size());
    continue_texts(together, texts, ends, sampling, [&](size_t i) { ++heard[i]; });
    for (size_t i = 0; i < texts.size(); ++i) {
      const size_t prompt = alone[i].size();
      single.cut(0, 0);
      continue_texts(single, {&alone[i], 1}, ends, sampling);
      EXPECT_EQ(texts[i], alone[i]) << i;
      EXPECT_EQ(heard[i], texts[i].size() - prompt) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, DecoderOf,
    testing::Values(Model{"tests/fixtures/hf/plain", 64}, Model{"tests/fixtures/hf/tied", 64},
                    Model{"tests/fixtures/hf/top1", 64}, Model{"tests/fixtures/hf/top3_window", 64},
                    Model{"tests/fixtures/hf/sharded_bf16", 64}, Model{"examples/quickstart/pretrained", 64}),
    [](const auto& model) { return model.param.folder.substr(model.param.folder.rfind('/') + 1); });

// A text ends at an end's token, at its limit, and at the decoder's last position.
TEST(ContinueTexts, EndWhereTheyAreTo) {
  Decoder decoder = open_decoder("tests/fixtures/hf/plain", {2, 12});
  std::vector<Ids> texts = {kPrompt, {1}};
  continue_texts(decoder, texts, {.most_tokens = 8}, {});
  EXPECT_EQ(texts[0].size(), 12u);
  EXPECT_EQ(texts[1].size(), 9u);
  std::vector<Ids> again = {kPrompt, {1}};
  decoder.cut(0, 0);
  decoder.cut(1, 0);
  continue_texts(decoder, again, {.ids = {texts[1][1]}, .most_tokens = 8}, {});
  EXPECT_EQ(again[1], (Ids{1, texts[1][1]}));
  EXPECT_EQ(again[0].size(), static_cast<size_t>(std::ranges::find(texts[0].begin() + 6, texts[0].end(), texts[1][1]) -
                                                 texts[0].begin()) +
                                 (std::ranges::count(texts[0].begin() + 6, texts[0].end(), texts[1][1]) > 0));
}

}  // namespace
}  // namespace mixtune
