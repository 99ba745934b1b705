#include "generate/text_stream.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/test_paths.h"

namespace mixtune {
namespace {

class StreamOf : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Tokenizer> tokenizer_ = open_tokenizer(source_path(GetParam()));
};

// Texts with characters that the vocabulary has, and ones that it spells byte by byte, of two to four bytes.
const std::string kTexts[] = {"Once upon a time", "a caf\xC3\xA9, \xE2\x82\xAC 5",
                              "\xF0\x9F\xA6\xA6\xF0\x9F\xA6\xA6 otter", "\xE6\xB0\xB4\xE7\x8D\xBA", "x\n\n  y"};

TEST_P(StreamOf, GivesWholeCharactersThatAreTheText) {
  int held = 0;
  for (const std::string& text : kTexts) {
    TextStream stream(*tokenizer_, {});
    std::string joined;
    for (const int32_t id : tokenizer_->encode(text)) {
      const std::string piece = stream.add(id);
      EXPECT_TRUE(is_utf8(piece)) << text;
      held += piece.empty();
      joined += piece;
    }
    EXPECT_EQ(joined, text);
    EXPECT_EQ(stream.finish(), "");
  }
  EXPECT_GT(held, 6);
}

TEST_P(StreamOf, FollowsThePromptWithTheSpaceBetween) {
  const std::vector<int32_t> all = tokenizer_->encode("Once upon a time"), prompt(all.begin(), all.begin() + 1);
  TextStream stream(*tokenizer_, prompt);
  std::string joined = tokenizer_->decode(prompt);
  for (size_t i = 1; i < all.size(); ++i) joined += stream.add(all[i]);
  EXPECT_EQ(joined, "Once upon a time");
}

TEST_P(StreamOf, ACharacterThatIsCutOffIsReplacedAtTheEnd) {
  std::vector<int32_t> ids = tokenizer_->encode("an \xF0\x9F\xA6\xA6");
  ids.pop_back();
  TextStream stream(*tokenizer_, {});
  std::string joined;
  for (const int32_t id : ids) joined += stream.add(id);
  EXPECT_EQ(joined, "an ");
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(stream.finish(), "");
}

TEST_P(StreamOf, ATokenThatTheTokenizerLacksSaysNothing) {
  TextStream stream(*tokenizer_, {});
  EXPECT_EQ(stream.add(tokenizer_->vocab_size()), "");
  EXPECT_EQ(stream.add(tokenizer_->encode("otter")[0]) + stream.finish(),
            tokenizer_->decode(std::vector{tokenizer_->encode("otter")[0]}));
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, StreamOf, testing::Values("examples/quickstart", "tests/fixtures/tokenizer"),
                         [](const auto& param) { return std::to_string(param.index); });

}  // namespace
}  // namespace mixtune
