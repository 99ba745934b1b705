#include "train/model_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/temp_folder.h"
#include "base/test_paths.h"

namespace mixtune {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

// The quickstart's tokeniser, of 4096 pieces, with one token added.
class ModelTokenizerTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::copy(source_path("examples/quickstart/tokenizer.model"), folder_ / "tokenizer.model");
    std::ofstream(folder_ / "added_tokens.json") << R"({"<|im_end|>": 4096})";
  }

  // What is thrown, and what is warned of.
  std::string refusal(const MixtralConfig& model) const {
    try {
      open_model_tokenizer(folder_ / "", model);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  }
  std::string warning(const MixtralConfig& model) const {
    testing::internal::CaptureStderr();
    EXPECT_EQ(refusal(model), "");
    return testing::internal::GetCapturedStderr();
  }

  TempFolder folder_;
};

TEST_F(ModelTokenizerTest, EveryTokenHasARow) {
  EXPECT_EQ(refusal({.vocab_size = 4097}), "");
  EXPECT_EQ(refusal({.vocab_size = 4160}), "");  // padded
  EXPECT_THAT(refusal({.vocab_size = 4096}),
              AllOf(HasSubstr("the added token '<|im_end|>' has the id 4096, beyond the model's vocab_size 4096"),
                    HasSubstr("resize")));
  EXPECT_THAT(refusal({.vocab_size = 4000}),
              HasSubstr("the tokeniser has 4097 tokens, the model's vocab_size is 4000"));
}

TEST_F(ModelTokenizerTest, WarnsOfOtherSpecialIds) {
  MixtralConfig model{.vocab_size = 4200};
  EXPECT_THAT(warning(model), IsEmpty());
  model.bos_token_id = 1;
  model.eos_token_ids = {2};
  EXPECT_THAT(warning(model), IsEmpty());
  model.eos_token_ids = {4096};
  EXPECT_THAT(warning(model), HasSubstr("EOS is 2 (</s>), config.json of the model says 4096 (<|im_end|>)"));
  model.eos_token_ids = {4100};
  EXPECT_THAT(warning(model), HasSubstr("says 4100 (no token of it)"));
  model.eos_token_ids = {4100, 2};
  EXPECT_THAT(warning(model), IsEmpty());
}

}  // namespace
}  // namespace mixtune
