#include "data/validation_split.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "data/load_documents.h"
#include "data/test_folder.h"

namespace mixtune {
namespace {

using testing::HasSubstr;

Documents numbered_documents(int64_t count) {
  Documents documents;
  for (int32_t d = 0; d < count; ++d) documents.append(std::vector{d, d}, std::vector{d, d});
  return documents;
}

// Record r has r % 50 + 1 tokens, all of which are r: those of one token have no target.
Documents load_records(int64_t count, int64_t max_seq_length, LongDocuments policy) {
  const TestFolder folder;
  std::string lines;
  for (int64_t r = 0; r < count; ++r) {
    lines += fmt::format("{{\"input_ids\":[{}", r);
    for (int64_t i = 0; i < r % 50; ++i) lines += fmt::format(",{}", r);
    lines += "]}\n";
  }
  const std::vector<std::string> files = {folder.write("records.jsonl", lines)};
  DataSettings settings;
  settings.max_seq_length = max_seq_length;
  settings.long_documents = policy;
  return load_documents(as_dataset(files), settings, {}, count);
}

std::set<int32_t> records_in(const Documents& documents) {
  std::set<int32_t> records;
  for (int64_t d = 0; d < documents.size(); ++d) records.insert(documents.ids(d)[0]);
  return records;
}

TEST(ValidationSplit, TakesItsShareOnceEach) {
  const Split split = split_validation(numbered_documents(1000), 10, 42);
  EXPECT_EQ(split.validation.size(), 100);
  EXPECT_EQ(split.train.size(), 900);
  std::set<int32_t> seen = records_in(split.train);
  seen.merge(records_in(split.validation));
  EXPECT_EQ(seen.size(), 1000u);
}

TEST(ValidationSplit, TheSeedDecides) {
  const Documents all = numbered_documents(1000);
  EXPECT_EQ(split_validation(all, 10, 42).validation, split_validation(all, 10, 42).validation);
  EXPECT_NE(split_validation(all, 10, 42).validation, split_validation(all, 10, 43).validation);
}

TEST(ValidationSplit, NoRecordTrainsAndValidatesHoweverItIsCut) {
  const std::set<int32_t> whole =
      records_in(split_validation(load_records(200, 64, LongDocuments::kTruncate), 10, 7).validation);
  EXPECT_GE(whole.size(), 15u);
  for (const int64_t max_seq_length : {2, 3, 7, 20})
    for (const LongDocuments policy : {LongDocuments::kSplit, LongDocuments::kTruncate}) {
      const Documents all = load_records(200, max_seq_length, policy);
      const Split split = split_validation(all, 10, 7);
      EXPECT_EQ(split.train.size() + split.validation.size(), all.size());
      EXPECT_EQ(records_in(split.validation), whole) << "max_seq_length " << max_seq_length;
      for (const int32_t record : records_in(split.train)) EXPECT_FALSE(whole.contains(record)) << record;
    }
}

TEST(ValidationSplit, PiecesOfARecordStayOfOneRecord) {
  const Documents all = load_records(50, 8, LongDocuments::kSplit);
  const Split split = split_validation(all, 20, 1);
  for (const Documents* part : {&split.train, &split.validation})
    EXPECT_EQ(part->records(), static_cast<int64_t>(records_in(*part).size()));
}

TEST(ValidationSplit, TakesAtLeastOneAndLeavesAtLeastOne) {
  EXPECT_EQ(split_validation(numbered_documents(10), 0.001, 1).validation.size(), 1);
  EXPECT_EQ(split_validation(numbered_documents(2), 1, 1).train.size(), 1);
  for (const auto& [count, percentage] : {std::pair(1, 1.0), std::pair(10, 99.9), std::pair(10, 1e300)})
    EXPECT_THAT(user_error([&] { split_validation(numbered_documents(count), percentage, 1); }),
                HasSubstr("leaves none to train on"));
}

TEST(ValidationSplit, OneRecordCannotBeSplitHoweverManyPiecesItHas) {
  Documents documents;
  documents.append(std::vector{1, 2}, std::vector{1, 2});
  for (int i = 0; i < 100; ++i) documents.append_piece(std::vector{1, 2}, std::vector{1, 2});
  EXPECT_THAT(user_error([&] { split_validation(documents, 10, 1); }),
              HasSubstr("10% of 1 records leaves none to train on"));
}

TEST(ValidationSplit, APartWithoutATargetIsOneClearLine) {
  Documents documents;
  documents.append(std::vector{1, 2}, std::vector{1, 2});
  documents.append(std::vector{1}, std::vector{1});  // no document
  std::set<std::string> messages;
  for (uint64_t seed = 0; seed < 20; ++seed)
    messages.insert(user_error([&] { split_validation(documents, 50, seed); }));
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_THAT(*messages.begin(), HasSubstr("the 1 records held out of 2 have no target"));
  EXPECT_THAT(*messages.rbegin(), HasSubstr("the 1 records left to train on of 2 have no target"));
}

}  // namespace
}  // namespace mixtune
