#include "train/model_tokenizer.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
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

  // The text of what is thrown, or of what is warned of; "" for none.
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
  EXPECT_THAT(
      refusal({.vocab_size = 4096}),
      AllOf(HasSubstr("its token '<|im_end|>' has the id 4096, and the model's vocab_size is 4096 (tokens without "
                      "a row: 1)"),
            HasSubstr("train with resize_vocabulary: true")));
  EXPECT_THAT(refusal({.vocab_size = 4000}),
              AllOf(HasSubstr("has the id 4000, and the model's vocab_size is 4000 (tokens without a row: 97)"),
                    HasSubstr("use the tokeniser that belongs to the model")));
}

TEST_F(ModelTokenizerTest, ResizesAVocabularyThatIsTooSmallWhereAsked) {
  ModelSettings settings{.model_name_or_path = folder_ / ""};
  EXPECT_EQ(resize_vocabulary(settings, {.vocab_size = 4000}).vocab_size, 4000);
  settings.resize_vocabulary = true;
  for (const int64_t before : {1000, 4000, 4096, 4097, 4160}) {
    testing::internal::CaptureStderr();
    const MixtralConfig after = resize_vocabulary(settings, {.vocab_size = before});
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(after.vocab_size, std::max<int64_t>(before, 4097));
    EXPECT_EQ(after.added_tokens, after.vocab_size - before);
    EXPECT_THAT(said, HasSubstr(before < 4097 ? fmt::format("vocabulary: {} -> 4097, new rows are the mean", before)
                                              : fmt::format("vocabulary: {}, nothing to resize", before)));
    EXPECT_EQ(refusal(after), "");
  }
  settings.tokenizer_name_or_path = folder_ / "none";
  EXPECT_THROW(resize_vocabulary(settings, {.vocab_size = 4000}), UserError);
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
