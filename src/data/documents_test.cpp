#include "data/documents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "data/batch.h"
#include "data/test_folder.h"

namespace mixtune {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class DocumentsTest : public testing::Test {
 protected:
  Documents load(const std::string& content, const Tokenizer* tokenizer = nullptr) {
    const std::vector<std::string> files = {folder_.write("data.jsonl", content)};
    testing::internal::CaptureStderr();
    try {
      Documents documents = load_documents(files, settings_, tokenizer, vocab_size_);
      log_ = testing::internal::GetCapturedStderr();
      return documents;
    } catch (...) {
      testing::internal::GetCapturedStderr();
      throw;
    }
  }

  std::string refusal(const std::string& content) {
    return user_error([&] { load(content); });
  }

  static std::vector<int32_t> ids(const Documents& documents, int64_t d) {
    return {documents.ids(d).begin(), documents.ids(d).end()};
  }
  static std::vector<int32_t> labels(const Documents& documents, int64_t d) {
    return {documents.labels(d).begin(), documents.labels(d).end()};
  }

  TestFolder folder_;
  DataSettings settings_;
  int64_t vocab_size_ = 100;
  std::string log_;
};

Documents numbered_documents(int64_t count) {
  Documents documents;
  for (int32_t d = 0; d < count; ++d) documents.append(std::vector{d, d}, std::vector{d, d});
  return documents;
}

TEST_F(DocumentsTest, LoadsTokenizedRecords) {
  const Documents documents = load("{\"input_ids\":[1,5,6,2],\"labels\":[-100,-100,6,2]}\n{\"input_ids\":[1,7]}\n");
  ASSERT_EQ(documents.size(), 2);
  EXPECT_THAT(ids(documents, 0), ElementsAre(1, 5, 6, 2));
  EXPECT_THAT(labels(documents, 0), ElementsAre(-100, -100, 6, 2));
  EXPECT_THAT(labels(documents, 1), ElementsAre(1, 7));
  EXPECT_EQ(documents.tokens(), 6);
  EXPECT_EQ(documents.targets(), 3);
  EXPECT_EQ(documents.length(1), 2);
  EXPECT_EQ(documents.max_length(), 4);
  EXPECT_THAT(log_, HasSubstr("2 records, 2 documents, 6 tokens, 3 of them targets"));
  EXPECT_THAT(log_, Not(HasSubstr("warning")));
}

TEST_F(DocumentsTest, LoadsSeveralFilesEachOfItsFormat) {
  const Tokenizer tokenizer(kTokenizerFixtures);
  vocab_size_ = tokenizer.vocab_size();
  const std::vector<std::string> files = {folder_.write("a.jsonl", "{\"text\":\"Hello\"}\n"),
                                          folder_.write("b.jsonl", "{\"input\":\"Hi\",\"output\":\"Yo\"}\n"),
                                          folder_.write("c.jsonl", "{\"input_ids\":[1,2]}\n")};
  const Documents documents = load_documents(files, settings_, &tokenizer, vocab_size_);
  ASSERT_EQ(documents.size(), 3);
  EXPECT_EQ(tokenizer.decode(documents.ids(0)), "Hello");
  EXPECT_EQ(tokenizer.decode(documents.ids(1)), "[INST] Hi [/INST] Yo");
  EXPECT_THAT(ids(documents, 2), ElementsAre(1, 2));
  EXPECT_TRUE(needs_tokenizer(files, DatasetFormat::kAuto));
  EXPECT_FALSE(needs_tokenizer(std::span(files).last(1), DatasetFormat::kAuto));
  EXPECT_TRUE(needs_tokenizer(std::span(files).last(1), DatasetFormat::kText));
  EXPECT_FALSE(needs_tokenizer(files, DatasetFormat::kTokenized));
}

TEST_F(DocumentsTest, EveryRecordMustBeOfTheFormatOfTheFirst) {
  EXPECT_THAT(refusal("{\"input_ids\":[1,2]}\n\n{\"text\":\"x\"}\n"),
              HasSubstr("data.jsonl:3: 'input_ids' is missing"));
  settings_.dataset_format = DatasetFormat::kText;
  EXPECT_THAT(refusal("{\"input_ids\":[1,2]}\n"), HasSubstr("data.jsonl:1: 'text' is missing"));
}

TEST_F(DocumentsTest, RefusesIdsOutOfRange) {
  EXPECT_THAT(refusal("{\"input_ids\":[1,2]}\n{\"input_ids\":[1,100]}\n"),
              HasSubstr("data.jsonl:2: input_ids[1] is 100, outside the model's vocabulary of 100"));
  EXPECT_THAT(refusal("{\"input_ids\":[-1,2]}\n"), HasSubstr("input_ids[0] is -1"));
  EXPECT_THAT(refusal("{\"input_ids\":[1,2],\"labels\":[1,100]}\n"), HasSubstr("labels[1] is 100"));
  EXPECT_THAT(refusal("{\"input_ids\":[1,2],\"labels\":[1,-1]}\n"), HasSubstr("labels[1] is -1"));
  EXPECT_EQ(load("{\"input_ids\":[0,99]}\n").size(), 1);
}

TEST_F(DocumentsTest, TruncatesLongDocumentsByDefault) {
  settings_.max_seq_length = 3;
  const Documents documents = load("{\"input_ids\":[1,2,3,4,5,6,7]}\n{\"input_ids\":[1,2,3]}\n");
  ASSERT_EQ(documents.size(), 2);
  EXPECT_THAT(ids(documents, 0), ElementsAre(1, 2, 3));
  EXPECT_THAT(log_, HasSubstr("1 longer than max_seq_length 3 and truncated"));
}

TEST_F(DocumentsTest, SplitsWhenAskedAndDropsATailWithoutTarget) {
  settings_.max_seq_length = 3;
  settings_.long_documents = LongDocuments::kSplit;
  const Documents documents = load("{\"input_ids\":[1,2,3,4,5,6,7]}\n");
  ASSERT_EQ(documents.size(), 2);
  EXPECT_THAT(ids(documents, 0), ElementsAre(1, 2, 3));
  EXPECT_THAT(ids(documents, 1), ElementsAre(4, 5, 6));
  EXPECT_THAT(log_, HasSubstr("1 longer than max_seq_length 3 and split, 1 left without a target and dropped"));
}

TEST_F(DocumentsTest, SplitsTextByDefaultAndLosesNothing) {
  const Tokenizer tokenizer(kTokenizerFixtures);
  vocab_size_ = tokenizer.vocab_size();
  settings_.max_seq_length = 5;
  const Documents documents = load("{\"text\":\"one two three four five six seven\"}\n", &tokenizer);
  std::vector<int32_t> joined;
  for (int64_t d = 0; d < documents.size(); ++d)
    joined.insert(joined.end(), documents.ids(d).begin(), documents.ids(d).end());
  EXPECT_EQ(documents.size(), 2);
  EXPECT_EQ(joined.front(), tokenizer.bos());
  EXPECT_EQ(joined.back(), tokenizer.eos());
  EXPECT_EQ(tokenizer.decode(joined), "one two three four five six seven");
}

TEST_F(DocumentsTest, RefusesLongDocumentsWhenAsked) {
  settings_.max_seq_length = 3;
  settings_.long_documents = LongDocuments::kError;
  EXPECT_THAT(refusal("{\"input_ids\":[1,2,3]}\n{\"input_ids\":[1,2,3,4]}\n"),
              HasSubstr("data.jsonl:2: the document of 4 tokens is longer than max_seq_length 3"));
}

TEST_F(DocumentsTest, DropsDocumentsWithoutATarget) {
  settings_.max_seq_length = 3;
  const Documents documents = load(
      "{\"input_ids\":[]}\n{\"input_ids\":[1]}\n{\"input_ids\":[1,2],\"labels\":[1,-100]}\n{\"input_ids\":[1,2]}\n"
      "{\"input_ids\":[1,2,3,4],\"labels\":[-100,-100,-100,4]}\n");
  ASSERT_EQ(documents.size(), 1);
  EXPECT_THAT(log_, HasSubstr("4 left without a target and dropped"));
}

TEST_F(DocumentsTest, RefusesDataWithoutATarget) {
  EXPECT_THAT(refusal("{\"input_ids\":[1]}\n{\"input_ids\":[1,2],\"labels\":[1,-100]}\n"),
              HasSubstr("data.jsonl: data without a single target in 2 records"));
  EXPECT_THAT(refusal(""), HasSubstr("data.jsonl: holds no records"));
  EXPECT_THAT(refusal("\n\n"), HasSubstr("data.jsonl: holds no records"));
}

TEST_F(DocumentsTest, TextWithoutATokenizerIsRefused) {
  EXPECT_THAT(refusal("{\"text\":\"x\"}\n"), HasSubstr("data.jsonl:1: there is no tokenizer for its text"));
}

TEST(SplitValidation, TakesItsShareOnceEach) {
  const Documents all = numbered_documents(1000);
  const Split split = split_validation(all, 10, 42);
  EXPECT_EQ(split.validation.size(), 100);
  EXPECT_EQ(split.train.size(), 900);
  std::multiset<int32_t> seen;
  for (const Documents* part : {&split.train, &split.validation})
    for (int64_t d = 0; d < part->size(); ++d) seen.insert(part->ids(d)[0]);
  for (int32_t d = 0; d < 1000; ++d) EXPECT_EQ(seen.count(d), 1u);
}

TEST(SplitValidation, TheSeedDecides) {
  const Documents all = numbered_documents(1000);
  EXPECT_EQ(split_validation(all, 10, 42).validation, split_validation(all, 10, 42).validation);
  EXPECT_NE(split_validation(all, 10, 42).validation, split_validation(all, 10, 43).validation);
}

TEST(SplitValidation, TakesAtLeastOneAndLeavesAtLeastOne) {
  EXPECT_EQ(split_validation(numbered_documents(10), 0.001, 1).validation.size(), 1);
  EXPECT_EQ(split_validation(numbered_documents(2), 1, 1).train.size(), 1);
  for (const auto& [count, percentage] : {std::pair(1, 1.0), std::pair(10, 99.9), std::pair(10, 1e300)})
    EXPECT_THAT(user_error([&] { split_validation(numbered_documents(count), percentage, 1); }),
                HasSubstr("leaves none to train on"));
}

}  // namespace
}  // namespace mixtune
