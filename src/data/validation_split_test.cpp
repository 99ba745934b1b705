#include "data/validation_split.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>

#include "data/load_documents.h"
#include "data/memory_documents.h"
#include "data/test_folder.h"

namespace mixtune {
namespace {

using testing::HasSubstr;

MemoryDocuments numbered_documents(int64_t count) {
  MemoryDocuments documents;
  for (int32_t d = 0; d < count; ++d) documents.append(std::vector{d, d}, std::vector{d, d});
  return documents;
}

// Record r has r % 50 + 1 tokens, all of them r; a record of one token has no target.
MemoryDocuments load_records(int64_t count, int64_t max_seq_length, LongDocuments policy) {
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
  for (int64_t d = 0; d < documents.size(); ++d) records.insert(read_document(documents, d).ids[0]);
  return records;
}

Split split(MemoryDocuments documents, double percentage, uint64_t seed) {
  return split_validation(std::make_shared<MemoryDocuments>(std::move(documents)), percentage, seed);
}

TEST(ValidationSplit, TakesItsShareOnceEach) {
  const Split parts = split(numbered_documents(1000), 10, 42);
  EXPECT_EQ(parts.validation->size(), 100);
  EXPECT_EQ(parts.train->size(), 900);
  std::set<int32_t> seen = records_in(*parts.train);
  seen.merge(records_in(*parts.validation));
  EXPECT_EQ(seen.size(), 1000u);
}

TEST(ValidationSplit, TheSeedDecides) {
  const MemoryDocuments all = numbered_documents(1000);
  const auto held_out = [&](uint64_t seed) {
    return split(all, 10, seed).validation;
  };
  EXPECT_TRUE(same_documents(*held_out(42), *held_out(42)));
  EXPECT_EQ(held_out(42)->digest(), held_out(42)->digest());
  EXPECT_FALSE(same_documents(*held_out(42), *held_out(43)));
  EXPECT_NE(held_out(42)->digest(), held_out(43)->digest());
}

TEST(ValidationSplit, NoRecordTrainsAndValidatesHoweverItIsCut) {
  const std::set<int32_t> whole = records_in(*split(load_records(200, 64, LongDocuments::kTruncate), 10, 7).validation);
  EXPECT_GE(whole.size(), 15u);
  for (const int64_t max_seq_length : {2, 3, 7, 20})
    for (const LongDocuments policy : {LongDocuments::kSplit, LongDocuments::kTruncate}) {
      const MemoryDocuments all = load_records(200, max_seq_length, policy);
      const Split parts = split(all, 10, 7);
      EXPECT_EQ(parts.train->size() + parts.validation->size(), all.size());
      EXPECT_EQ(records_in(*parts.validation), whole) << "max_seq_length " << max_seq_length;
      for (const int32_t record : records_in(*parts.train)) EXPECT_FALSE(whole.contains(record)) << record;
    }
}

TEST(ValidationSplit, PiecesOfARecordStayOfOneRecord) {
  const MemoryDocuments all = load_records(50, 8, LongDocuments::kSplit);
  const Split parts = split(all, 20, 1);
  const auto records_of = [](const Documents& part) {
    std::set<int64_t> records;
    for (int64_t d = 0; d < part.size(); ++d) records.insert(part.record(d));
    return records;
  };
  for (const auto& part : {parts.train, parts.validation})
    EXPECT_EQ(records_of(*part).size(), records_in(*part).size());
}

TEST(ValidationSplit, TakesAtLeastOneAndLeavesAtLeastOne) {
  EXPECT_EQ(split(numbered_documents(10), 0.001, 1).validation->size(), 1);
  EXPECT_EQ(split(numbered_documents(2), 1, 1).train->size(), 1);
  for (const auto& [count, percentage] : {std::pair(1, 1.0), std::pair(10, 99.9), std::pair(10, 1e300)})
    EXPECT_THAT(user_error([&] { split(numbered_documents(count), percentage, 1); }),
                HasSubstr("leaves none to train on"));
}

TEST(ValidationSplit, PartsAreCountedAsTheyAre) {
  const Split parts = split(load_records(1000, 16, LongDocuments::kSplit), 30, 5);
  for (const auto& part : {parts.train, parts.validation}) {
    DocumentTotals totals{.records = 1000};
    for (int64_t d = 0; d < part->size(); ++d) {
      const Document document = read_document(*part, d);
      ++totals.documents;
      totals.tokens += part->length(d);
      totals.targets += part->targets(d);
      totals.max_length = std::max(totals.max_length, part->length(d));
      EXPECT_EQ(document.ids[0], part->record(d));
      EXPECT_EQ(static_cast<int64_t>(document.ids.size()), part->length(d));
    }
    EXPECT_EQ(part->totals(), totals);
  }
}

TEST(ValidationSplit, OneRecordCannotBeSplitHoweverManyPiecesItHas) {
  MemoryDocuments documents;
  documents.append(std::vector{1, 2}, std::vector{1, 2});
  for (int i = 0; i < 100; ++i) documents.append_piece(std::vector{1, 2}, std::vector{1, 2});
  EXPECT_THAT(user_error([&] { split(documents, 10, 1); }), HasSubstr("10% of 1 records leaves none to train on"));
}

TEST(ValidationSplit, APartWithoutATargetIsOneClearLine) {
  MemoryDocuments documents;
  documents.append(std::vector{1, 2}, std::vector{1, 2});
  documents.append(std::vector{1}, std::vector{1});  // no document
  std::set<std::string> messages;
  for (uint64_t seed = 0; seed < 20; ++seed) messages.insert(user_error([&] { split(documents, 50, seed); }));
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_THAT(*messages.begin(), HasSubstr("the 1 records held out of 2 have no target"));
  EXPECT_THAT(*messages.rbegin(), HasSubstr("the 1 records left to train on of 2 have no target"));
}

Split split_in_order(MemoryDocuments documents, const std::string& weights) {
  return split_records(std::make_shared<MemoryDocuments>(std::move(documents)), weights, "run.yaml:3: split",
                       "a.jsonl");
}

std::set<int32_t> range(int32_t begin, int32_t end) {
  std::set<int32_t> numbers;
  for (int32_t i = begin; i < end; ++i) numbers.insert(i);
  return numbers;
}

void expect_totals(const Documents& documents) {
  DocumentTotals totals{.records = documents.records()};
  for (int64_t d = 0; d < documents.size(); ++d) {
    ++totals.documents;
    totals.tokens += documents.length(d);
    totals.targets += documents.targets(d);
    totals.max_length = std::max(totals.max_length, documents.length(d));
  }
  EXPECT_EQ(totals, documents.totals());
}

TEST(SplitRecords, CutsAtMegatronsBordersInTheOrderOfTheRecords) {
  const Split parts = split_in_order(numbered_documents(1001), "990,9,1");
  EXPECT_EQ(records_in(*parts.train), range(0, 991));
  EXPECT_EQ(records_in(*parts.validation), range(991, 1000));
  for (const auto& part : {parts.train, parts.validation}) expect_totals(*part);
  const Split halves = split_in_order(numbered_documents(5), ".5,.5");  // Python's round(2.5) is 2
  EXPECT_EQ(records_in(*halves.train), range(0, 2));
  EXPECT_EQ(records_in(*halves.validation), range(2, 5));
}

TEST(SplitRecords, NoRecordIsInTwoPartsHoweverItIsCut) {
  for (const int64_t max_seq_length : {2, 3, 7, 20, 64}) {
    const Split parts = split_in_order(load_records(200, max_seq_length, LongDocuments::kSplit), "7,2,1");
    for (const int32_t r : records_in(*parts.train)) EXPECT_LT(r, 140);
    for (const int32_t r : records_in(*parts.validation)) EXPECT_TRUE(r >= 140 && r < 180) << r;
    EXPECT_EQ(records_in(*parts.validation).size(), 40u - 1) << "record 150 has a token and no target";
    for (const auto& part : {parts.train, parts.validation}) expect_totals(*part);
  }
}

TEST(SplitRecords, APartWithoutWeightIsNone) {
  EXPECT_EQ(split_in_order(numbered_documents(10), "1").validation, nullptr);
  EXPECT_EQ(split_in_order(numbered_documents(10), "1,0,1").train->size(), 5);
  const Split validation = split_in_order(numbered_documents(10), "0,1");
  EXPECT_EQ(validation.train, nullptr);
  EXPECT_EQ(validation.validation->size(), 10);
}

TEST(SplitRecords, APartWithAWeightAndNothingIsAnError) {
  const auto error = [](MemoryDocuments documents, const std::string& weights) {
    return user_error([&] { split_in_order(std::move(documents), weights); });
  };
  EXPECT_EQ(
      error(numbered_documents(10), "990,9,1"),
      "run.yaml:3: split: '990,9,1' gives validation 0 of the 10 records of a.jsonl, without a target; change the "
      "weights, or set that one to 0");
  EXPECT_THAT(error(numbered_documents(10), "1,1000"), HasSubstr("gives training 0 of the 10 records"));
  EXPECT_THAT(error(load_records(51, 64, LongDocuments::kTruncate), "50,1"), HasSubstr("gives validation 1 of the 51"));
}

}  // namespace
}  // namespace mixtune
