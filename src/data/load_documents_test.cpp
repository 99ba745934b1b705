#include "data/load_documents.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

#include "data/batch.h"
#include "data/label.h"
#include "data/test_folder.h"

namespace mixtune {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class DocumentsTest : public testing::Test {
 protected:
  MemoryDocuments load(const std::string& content, const Tokenizer* tokenizer = nullptr) {
    const std::vector<std::string> files = {folder_.write("data.jsonl", content)};
    testing::internal::CaptureStderr();
    try {
      MemoryDocuments documents = load_documents(as_dataset(files), settings_, {.tokenizer = tokenizer}, vocab_size_);
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

  static std::vector<int32_t> ids(const Documents& documents, int64_t d) { return read_document(documents, d).ids; }
  static std::vector<int32_t> labels(const Documents& documents, int64_t d) {
    return read_document(documents, d).labels;
  }

  TestFolder folder_;
  DataSettings settings_;
  int64_t vocab_size_ = 100;
  std::string log_;
};

TEST_F(DocumentsTest, LoadsTokenizedRecords) {
  const MemoryDocuments documents =
      load("{\"input_ids\":[1,5,6,2],\"labels\":[-100,-100,6,2]}\n{\"input_ids\":[1,7]}\n");
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
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(kTokenizerFixtures);
  vocab_size_ = tokenizer->vocab_size();
  const std::vector<std::string> files = {folder_.write("a.jsonl", "{\"text\":\"Hello\"}\n"),
                                          folder_.write("b.jsonl", "{\"input\":\"Hi\",\"output\":\"Yo\"}\n"),
                                          folder_.write("c.jsonl", "{\"input_ids\":[1,2]}\n")};
  const MemoryDocuments documents =
      load_documents(as_dataset(files), settings_, {.tokenizer = tokenizer.get()}, vocab_size_);
  ASSERT_EQ(documents.size(), 3);
  EXPECT_EQ(tokenizer->decode(ids(documents, 0)), "Hello");
  EXPECT_EQ(tokenizer->decode(ids(documents, 1)), "[INST] Hi [/INST] Yo");
  EXPECT_THAT(ids(documents, 2), ElementsAre(1, 2));
  EXPECT_TRUE(needs_tokenizer(as_dataset(files), DatasetFormat::kAuto));
  EXPECT_FALSE(needs_tokenizer(as_dataset({files.back()}), DatasetFormat::kAuto));
  EXPECT_TRUE(needs_tokenizer(as_dataset({files.back()}), DatasetFormat::kText));
  EXPECT_FALSE(needs_tokenizer(as_dataset(files), DatasetFormat::kTokenized));
  EXPECT_FALSE(needs_tokenizer(std::vector<Dataset>{{.path = files, .format = DatasetFormat::kTokenized}},
                               DatasetFormat::kText));
}

TEST_F(DocumentsTest, EveryRecordMustBeOfTheFormatOfTheFirst) {
  EXPECT_THAT(refusal("{\"input_ids\":[1,2]}\n\n{\"text\":\"x\"}\n"),
              HasSubstr("data.jsonl:3: is not of format tokenized: its keys are text"));
  settings_.dataset_format = DatasetFormat::kText;
  EXPECT_THAT(refusal("{\"input_ids\":[1,2]}\n"),
              HasSubstr("data.jsonl:1: is not of format text: its keys are input_ids"));
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
  const MemoryDocuments documents = load("{\"input_ids\":[1,2,3,4,5,6,7]}\n{\"input_ids\":[1,2,3]}\n");
  ASSERT_EQ(documents.size(), 2);
  EXPECT_THAT(ids(documents, 0), ElementsAre(1, 2, 3));
  EXPECT_THAT(log_, HasSubstr("1 longer than max_seq_length 3 and truncated"));
}

TEST_F(DocumentsTest, SplitsWhenAskedIntoPiecesThatOverlapByAToken) {
  settings_.max_seq_length = 3;
  settings_.long_documents = LongDocuments::kSplit;
  const MemoryDocuments documents = load("{\"input_ids\":[1,2,3,4,5,6]}\n{\"input_ids\":[7,8]}\n");
  ASSERT_EQ(documents.size(), 4);
  EXPECT_THAT(ids(documents, 0), ElementsAre(1, 2, 3));
  EXPECT_THAT(ids(documents, 1), ElementsAre(3, 4, 5));
  EXPECT_THAT(ids(documents, 2), ElementsAre(5, 6));
  EXPECT_EQ(documents.record(2), 0);
  EXPECT_EQ(documents.record(3), 1);
  EXPECT_THAT(log_, HasSubstr("1 longer than max_seq_length 3 and split"));
  EXPECT_THAT(log_, Not(HasSubstr("dropped")));
}

// A token's id and the label of the next, counted as often as it is trained.
using Target = std::pair<int32_t, int32_t>;
std::vector<Target> targets_of(const Documents& documents) {
  std::vector<Target> targets;
  for (int64_t d = 0; d < documents.size(); ++d) {
    const auto [ids, labels, weights] = read_document(documents, d);
    for (size_t i = 0; i + 1 < ids.size(); ++i)
      if (labels[i + 1] != kIgnoreTarget) targets.emplace_back(ids[i], labels[i + 1]);
  }
  return targets;
}

TEST_F(DocumentsTest, SplittingTrainsEachLabelOnceWhateverTheLength) {
  settings_.long_documents = LongDocuments::kSplit;
  for (const int32_t ignore_every : {1000, 3}) {
    for (int32_t length = 2; length <= 40; ++length) {
      std::vector<int32_t> all(length), trained(length);
      std::vector<Target> expected;
      for (int32_t i = 0; i < length; ++i) {
        all[i] = i + 1;
        trained[i] = i % ignore_every == ignore_every - 1 ? kIgnoreTarget : i + 1;
        if (i > 0 && trained[i] != kIgnoreTarget) expected.emplace_back(i, i + 1);
      }
      const std::string line =
          fmt::format("{{\"input_ids\":[{}],\"labels\":[{}]}}\n", fmt::join(all, ","), fmt::join(trained, ","));
      for (settings_.max_seq_length = 2; settings_.max_seq_length <= length + 1; ++settings_.max_seq_length) {
        const MemoryDocuments documents = load(line);
        ASSERT_EQ(targets_of(documents), expected) << length << " tokens in pieces of " << settings_.max_seq_length;
        ASSERT_EQ(documents.targets(), static_cast<int64_t>(expected.size()));
        ASSERT_LE(documents.max_length(), settings_.max_seq_length);
      }
    }
  }
}

TEST_F(DocumentsTest, SplitsTextByDefaultAndLosesNothing) {
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(kTokenizerFixtures);
  vocab_size_ = tokenizer->vocab_size();
  settings_.max_seq_length = 5;
  const MemoryDocuments documents = load("{\"text\":\"one two three four five six seven\"}\n", tokenizer.get());
  std::vector<int32_t> joined = {ids(documents, 0)[0]};
  for (const auto& [id, next] : targets_of(documents)) {
    EXPECT_EQ(id, joined.back());
    joined.push_back(next);
  }
  EXPECT_EQ(documents.size(), 2);
  EXPECT_EQ(joined.front(), tokenizer->bos());
  EXPECT_EQ(joined.back(), tokenizer->eos());
  EXPECT_EQ(tokenizer->decode(joined), "one two three four five six seven");
}

TEST_F(DocumentsTest, RefusesLongDocumentsWhenAsked) {
  settings_.max_seq_length = 3;
  settings_.long_documents = LongDocuments::kError;
  EXPECT_THAT(refusal("{\"input_ids\":[1,2,3]}\n{\"input_ids\":[1,2,3,4]}\n"),
              HasSubstr("data.jsonl:2: the document of 4 tokens is longer than max_seq_length 3"));
}

TEST_F(DocumentsTest, DropsDocumentsWithoutATarget) {
  settings_.max_seq_length = 3;
  const MemoryDocuments documents = load(
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

TEST_F(DocumentsTest, ALineMayContinueTheRecordBefore) {
  const MemoryDocuments documents = load(
      "{\"input_ids\":[1]}\n{\"input_ids\":[1,2],\"continues_record\":true}\n"
      "{\"input_ids\":[3,4],\"continues_record\":false}\n{\"input_ids\":[4,5],\"continues_record\":true}\n");
  ASSERT_EQ(documents.size(), 3);
  EXPECT_EQ(documents.records(), 2);
  EXPECT_EQ(documents.record(0), 0);
  EXPECT_EQ(documents.record(1), 1);
  EXPECT_EQ(documents.record(2), 1);
  EXPECT_THAT(refusal("{\"input_ids\":[1,2],\"continues_record\":true}\n"),
              HasSubstr("data.jsonl:1: 'continues_record' in the first line"));
  EXPECT_THAT(refusal("{\"input_ids\":[1,2],\"continues_record\":1}\n"), HasSubstr("is 1, not true or false"));
}

TEST_F(DocumentsTest, NamesTheKeysThatAreNotReadOnceAFile) {
  std::string content;
  for (int i = 0; i < 9000; ++i) content += fmt::format("{{\"input_ids\":[1,2],\"id\":{},\"source\":null}}\n", i);
  load(content + "{\"input_ids\":[1,2],\"source\":\"x\"}\n");
  EXPECT_THAT(log_, HasSubstr("data.jsonl: format tokenized does not read the keys: id (9000), source (1)\n"));
  EXPECT_EQ(log_.find("does not read", log_.find("does not read") + 1), std::string::npos);
}

TEST_F(DocumentsTest, APackedRowBecomesTheDocumentsOfOneRecord) {
  const MemoryDocuments documents = load(
      "{\"input_ids\":[1,5,2,1,6,2],\"position_ids\":[0,1,2,0,1,2]}\n{\"input_ids\":[1,7,1,8],\"seq_lengths\":[2,2]}"
      "\n");
  ASSERT_EQ(documents.size(), 4);
  EXPECT_THAT(ids(documents, 1), ElementsAre(1, 6, 2));
  EXPECT_EQ(documents.records(), 2);
  EXPECT_EQ(documents.record(1), 0);
  EXPECT_EQ(documents.record(3), 1);
}

TEST_F(DocumentsTest, EachDataSetHasItsFormatAndNumberOfRecords) {
  std::string many;
  for (int i = 1; i < 10; ++i) many += fmt::format("{{\"input_ids\":[{0},{0}],\"text\":\"x\"}}\n", i);
  const std::vector<std::string> files = {folder_.write("a.jsonl", many), folder_.write("b.jsonl", many)};
  settings_.dataset_format = DatasetFormat::kText;
  const auto firsts = [&](std::vector<Dataset> datasets) {
    for (Dataset& dataset : datasets) dataset.format = DatasetFormat::kTokenized;
    const MemoryDocuments documents = load_documents(datasets, settings_, {}, vocab_size_);
    std::vector<int32_t> first;
    for (int64_t d = 0; d < documents.size(); ++d) first.push_back(ids(documents, d)[0]);
    return first;
  };
  EXPECT_THAT(firsts({{.path = {files[0]}, .max_samples = 2}}), ElementsAre(1, 2));
  EXPECT_THAT(firsts({{.path = files, .max_samples = 9}}), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9));
  EXPECT_THAT(firsts({{.path = files, .max_samples = 11}}), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2));
  EXPECT_THAT(firsts({{.path = {files[0]}, .max_samples = 1}, {.path = {files[1]}, .max_samples = 3}}),
              ElementsAre(1, 1, 2, 3));
  EXPECT_EQ(firsts({{.path = files, .max_samples = 1000}}).size(), 18u);
}

}  // namespace
}  // namespace mixtune
