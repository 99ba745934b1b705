#include "data/data_survey.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "data/marked_text.h"
#include "data/test_folder.h"

namespace mixtune {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kChat =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},{\"role\":\"user\",\"content\":\"Hi\"},"
    "{\"role\":\"assistant\",\"content\":\"Hello\"}]}\n"
    "{\"messages\":[{\"role\":\"user\",\"content\":\"And?\"},{\"role\":\"assistant\",\"content\":\"Yes.\"}]}\n";

class SurveyTest : public testing::Test {
 protected:
  DataSurvey survey(const std::string& content, bool tokenised = false) {
    const std::string path = folder_.write("data.jsonl", content);
    return survey_data_file(path, options_, {.tokenizer = tokenised ? tokenizer_.get() : nullptr});
  }

  TestFolder folder_;
  SurveyOptions options_;
  const std::unique_ptr<Tokenizer> tokenizer_ = open_tokenizer(kTokenizerFixtures);
};

TEST_F(SurveyTest, CountsRecordsAndTurns) {
  const DataSurvey plain = survey(kChat);
  EXPECT_THAT(plain.text, HasSubstr("format: messages\nrecords: 2\nkeys of the first record: messages\n"));
  EXPECT_THAT(plain.text, HasSubstr("turns: 1 system, 2 user, 2 assistant, 0 tool\n"));
  EXPECT_THAT(plain.text, AllOf(Not(HasSubstr("tokens")), Not(HasSubstr("fault"))));
  EXPECT_EQ(plain.records, 2);
  EXPECT_EQ(plain.faulty, 0);
}

TEST_F(SurveyTest, CountsTokensAndWhatIsCut) {
  options_.settings.max_seq_length = 3;
  const DataSurvey found = survey(
      "{\"input_ids\":[1,2,3],\"id\":7}\n{\"input_ids\":[1,2,3,4,5],\"labels\":[-100,-100,3,4,5]}\n"
      "{\"input_ids\":[1,2],\"labels\":[1,-100]}\n");
  EXPECT_THAT(found.text, HasSubstr("keys of the first record: input_ids, id\nkeys not read: id (1)\n"));
  EXPECT_THAT(found.text, HasSubstr("tokens: 10\ntargets: 5 (50.0% of the tokens)\n"));
  EXPECT_THAT(found.text, HasSubstr("documents without a target: 1, which are dropped\n"));
  EXPECT_THAT(found.text, HasSubstr("tokens a document: min 2, mean 3.3, max 5\n"));
  EXPECT_THAT(
      found.text,
      HasSubstr("longer than max_seq_length 3: 1 documents, which are cut off, with 2 tokens beyond it (20.0%)\n"));
  EXPECT_THAT(found.text, Not(HasSubstr("weight")));
  EXPECT_THAT(
      survey("{\"input_ids\":[1,2,3,4,5],\"loss_mask\":[2,0.5,0,1,3]}\n").text,
      HasSubstr("targets: 3 (60.0% of the tokens)\ntargets of another weight than 1: 2 (66.7% of the targets)\n"));
  options_.settings.long_documents = LongDocuments::kSplit;
  EXPECT_THAT(survey("{\"input_ids\":[1,2,3,4]}\n").text, HasSubstr("1 documents, which are split"));
  EXPECT_THAT(survey("{\"input_ids\":[1,2,3]}\n").text, HasSubstr("longer than max_seq_length 3: none\n"));
}

TEST_F(SurveyTest, NamesTheFirstFaultsAndCountsTheirKinds) {
  std::string content;
  for (int i = 0; i < 30; ++i) content += "{\"input_ids\":[1,2]}\n{\"input_ids\":[1,\"x\"]}\nnot JSON\n";
  const DataSurvey found = survey(content + "{\"text\":\"x\"}\n");
  EXPECT_EQ(found.records, 91);
  EXPECT_EQ(found.faulty, 61);
  EXPECT_THAT(found.text, HasSubstr("records: 91\nrecords without a fault: 30\n"));
  EXPECT_THAT(found.text, HasSubstr("tokens: 60\n"));
  EXPECT_THAT(found.text, HasSubstr("        30 x 'input_ids' holds a string (entry #)"));
  EXPECT_THAT(found.text, HasSubstr("        30 x is not valid JSON at byte #"));
  EXPECT_THAT(found.text, HasSubstr("         1 x is not of format tokenized: its keys are text; "));
  EXPECT_THAT(found.text,
              HasSubstr("the first 20:\n  " + folder_.path("data.jsonl") + ":2: 'input_ids' holds a string"));
  EXPECT_THAT(found.text, AllOf(HasSubstr("data.jsonl:30: "), Not(HasSubstr("data.jsonl:32: "))));
}

TEST_F(SurveyTest, AFaultyFirstRecordHidesNothing) {
  const DataSurvey found = survey("{\"a\":1}\n" + std::string(kChat));
  EXPECT_THAT(found.text, HasSubstr("format: messages\nrecords: 3\nrecords without a fault: 2\n"));
}

TEST_F(SurveyTest, WritesTheGoodRecords) {
  options_.good_path = folder_.path("good.jsonl");
  const std::string path =
      folder_.write("data.json", "[{\"input_ids\":[1,2],\n  \"id\": 1.50},\n {\"input_ids\":3},{\"input_ids\":[4,5]}]");
  EXPECT_EQ(survey_data_file(path, options_, {}).faulty, 1);
  EXPECT_EQ(TestFolder::read(options_.good_path), "{\"input_ids\":[1,2],\"id\":1.5}\n{\"input_ids\":[4,5]}\n");
  EXPECT_THAT(user_error([&] { survey_data_file(path, options_, {}); }), HasSubstr("good.jsonl"));
  options_.good_path = folder_.path("none.jsonl");
  EXPECT_THAT(user_error([&] { survey(""); }), HasSubstr("holds no records"));
  EXPECT_FALSE(std::filesystem::exists(options_.good_path));
}

TEST_F(SurveyTest, ShowsWhatIsTrained) {
  options_.samples = 1;
  const DataSurvey found = survey(kChat, true);
  EXPECT_THAT(found.text, HasSubstr("samples, what is trained between [[ and ]]:\n"));
  EXPECT_THAT(found.text, HasSubstr(":1: <s> [INST] Be brief.\\x0a\\x0aHi [/INST][[ Hello</s>]]\n"));
  EXPECT_THAT(found.text, Not(HasSubstr("data.jsonl:2: ")));
}

TEST_F(SurveyTest, MarksByColour) {
  const TokenSequence document{.ids = {1, 22557, 2, 40000}, .labels = {-100, 22557, 2, -100}};
  EXPECT_EQ(marked_text(*tokenizer_, document, true), "<s>\x1b[32m Hello</s>\x1b[0m<40000>");
  EXPECT_EQ(marked_text(*tokenizer_, {.ids = {22557, 22557}, .labels = {-100, 22557}}, false), "Hello[[ Hello]]");
}

TEST(LengthHistogram, IsByPowersOfTwo) {
  LengthHistogram lengths;
  for (const int64_t length : {3, 4, 4, 5, 17}) lengths.add(length);
  EXPECT_EQ(lengths.text(),
            "         3 to 4                  3  ########################################\n"
            "         5 to 8                  1  ##############\n"
            "         9 to 16                 0  \n"
            "        17 to 32                 1  ##############\n");
  LengthHistogram empty;
  for (const int64_t length : {0, 1, 2}) empty.add(length);
  EXPECT_THAT(empty.text(), HasSubstr("         0 to 1                  2  "));
}

}  // namespace
}  // namespace mixtune
