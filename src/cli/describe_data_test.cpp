#include "cli/describe_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/test_paths.h"

namespace mixtune {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Describe, IndexedData) {
  EXPECT_EQ(describe_indexed(source_path("tests/fixtures/indexed/small")),
            "format: indexed\ntype of a token: u16\ndocuments: 6\nsequences: 5\ntokens: 9\n"
            "tokens a sequence: min 0, mean 1.8, max 4\nmask: none, all are trained\n");
  EXPECT_THAT(describe_indexed(source_path("tests/fixtures/indexed/no_sequence")), Not(HasSubstr("tokens a sequence")));
}

TEST(Describe, Tokenizers) {
  const std::string text = describe_tokenizer(source_path("tests/fixtures/tokenizer"));
  EXPECT_THAT(text, HasSubstr("pieces: 32000\nBOS: 1 (<s>)\nEOS: 2 (</s>)\nunknown: 0 (<unk>)\n"));
}

}  // namespace
}  // namespace mixtune
