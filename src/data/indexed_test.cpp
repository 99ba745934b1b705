// Indexed data sets: Megatron-Core's fixtures (scripts/make_indexed_fixtures.py), and writing that reads back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <map>

#include "base/json_value.h"
#include "data/batch.h"
#include "data/indexed_testing.h"
#include "data/label.h"

namespace mixtune {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

DataSet data_set(const std::string& name) {
  return nlohmann::json::parse(TestFolder::read(kIndexedFixtures + "/data_sets.json")).at(name).get<DataSet>();
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::ranges::sort(names);
  return names;
}

TEST(IndexedReader, ReadsWhatMegatronWrote) {
  for (const std::string name : {"small", "large", "no_sequence"}) {
    const IndexedReader reader(kIndexedFixtures + "/" + name, kVocab);
    EXPECT_EQ(read_all(reader), data_set(name)) << name;
    EXPECT_FALSE(reader.has_mask());
  }
  const IndexedReader small(kIndexedFixtures + "/small", kVocab), large(kIndexedFixtures + "/large", kVocab);
  EXPECT_EQ(small.type(), TokenType::kU16);
  EXPECT_EQ(large.type(), TokenType::kI32);
  EXPECT_EQ(small.documents(), 6);
  EXPECT_EQ(small.sequences(), 5);
  EXPECT_EQ(small.tokens(), 9);
  EXPECT_EQ(small.max_length(), 4);
}

TEST(IndexedWriter, WritesTheBytesThatMegatronDoes) {
  const TestFolder folder;
  const std::map<std::string, int64_t> vocabularies = {{"small", 65499}, {"large", 200000}, {"no_sequence", 32000}};
  for (const auto& [name, vocab_size] : vocabularies) {
    write_data_set(folder.path(name), data_set(name), vocab_size);
    for (const std::string ending : {".idx", ".bin"})
      EXPECT_EQ(TestFolder::read(folder.path(name + ending)), TestFolder::read(kIndexedFixtures + "/" + name + ending))
          << name;
  }
  EXPECT_EQ(names_in(folder.path()).size(), 6u) << "a mask or a temporary file";
}

TEST(IndexedWriter, TakesTheTokenTypeThatMegatronDoes) {
  EXPECT_EQ(token_type_for(65499), TokenType::kU16);
  EXPECT_EQ(token_type_for(65500), TokenType::kI32);
}

// The lengths exceed the blocks in which the index, the ids and the mask are read and written.
TEST(IndexedWriter, WhatIsWrittenReadsBackTheSame) {
  const TestFolder folder;
  DataSet documents;
  std::vector<Sequence> labels;
  {
    IndexedWriter writer(folder.path("data"), 32000, Existing::kRefused);
    for (int d = 0; d < 3000; ++d) {
      auto& sequences = documents.emplace_back();
      for (int s = 0; s < d % 4; ++s) {
        Sequence ids(d == 1999 ? 70000 + s : d % 37), trained(ids.size());
        for (size_t i = 0; i < ids.size(); ++i) {
          ids[i] = static_cast<int32_t>((d * 7919 + s * 104729 + i * 31) % 32000);
          trained[i] = i > 0 && (ids[i] + i) % 3 == 0 ? kIgnoreTarget : ids[i];
        }
        writer.append(ids, trained);
        sequences.push_back(ids);
        labels.push_back(trained);
      }
      writer.end_document();
    }
    writer.finish();
  }
  EXPECT_THAT(names_in(folder.path()), ElementsAre("data.bin", "data.idx", "data.mask"));

  const IndexedReader reader(folder.path("data"), 32000);
  EXPECT_EQ(read_all(reader), documents);
  ASSERT_EQ(reader.sequences(), static_cast<int64_t>(labels.size()));
  for (int64_t s = 0; s < reader.sequences(); ++s) ASSERT_EQ(labels_of(reader, s), labels[s]) << s;
  std::vector<int32_t> lengths(1000);
  reader.lengths(500, lengths);
  for (int64_t s = 0; s < 1000; ++s) ASSERT_EQ(lengths[s], static_cast<int64_t>(labels[500 + s].size()));

  const int64_t longest = reader.document_begin(1999) + 1;
  Sequence some(40000), some_labels(some.size());
  reader.read(longest, 12345, some, some_labels);
  EXPECT_TRUE(std::ranges::equal(some, std::span(documents[1999][1]).subspan(12345, 40000)));
  EXPECT_TRUE(std::ranges::equal(some_labels, std::span(labels[longest]).subspan(12345, 40000)));
}

TEST(IndexedWriter, WritesAMaskOnlyWhereATokenIsNotTrained) {
  const TestFolder folder;
  const auto write_labels = [&](const Sequence& labels) {
    IndexedWriter writer(folder.path("data"), kVocab, Existing::kReplaced);
    writer.append(Sequence{1, 2, 3, 4, 5, 6, 7, 8, 9}, labels);
    writer.end_document();
    writer.finish();
  };
  write_labels({1, 2, -100, 4, 5, 6, 7, 8, -100});
  EXPECT_EQ(TestFolder::read(folder.path("data.mask")),
            std::string("MTMASK\0\0\1\0\0\0\0\0\0\0\x9\0\0\0\0\0\0\0\xFB\0", 26));
  EXPECT_THAT(labels_of(IndexedReader(folder.path("data"), kVocab), 0), ElementsAre(1, 2, -100, 4, 5, 6, 7, 8, -100));
  write_labels({-100, 2, 3, 4, 5, 6, 7, 8, 9});
  EXPECT_THAT(names_in(folder.path()), ElementsAre("data.bin", "data.idx"));
}

TEST(IndexedWriter, WritesWeightsOnlyWhereATrainedTokenHasAnotherThanOne) {
  const TestFolder folder;
  const auto write = [&](const Sequence& labels, const std::vector<float>& weights) {
    IndexedWriter writer(folder.path("data"), kVocab, Existing::kReplaced);
    writer.append(Sequence{1, 2}, Sequence{1, 2});
    writer.append(Sequence{1, 2, 3}, labels, weights);
    writer.append(Sequence{4}, Sequence{4});
    writer.end_document();
    writer.finish();
  };
  write({1, -100, 3}, {9, 0, 0.5});
  std::string expected("MTWEIGHT\1\0\0\0\0\0\0\0\6\0\0\0\0\0\0\0", 24);
  for (const float weight : {1.0F, 1.0F, 1.0F, 1.0F, 0.5F, 1.0F})
    expected.append(reinterpret_cast<const char*>(&weight), sizeof weight);
  EXPECT_EQ(TestFolder::read(folder.path("data.weights")), expected);
  EXPECT_THAT(names_in(folder.path()), ElementsAre("data.bin", "data.idx", "data.mask", "data.weights"));
  EXPECT_THAT(weights_of(IndexedReader(folder.path("data"), kVocab), 1), ElementsAre(1, 0, 0.5));
  write({1, -100, 3}, {9, 7, 1});
  EXPECT_THAT(names_in(folder.path()), ElementsAre("data.bin", "data.idx", "data.mask"));
  EXPECT_THAT(weights_of(IndexedReader(folder.path("data"), kVocab), 1), ElementsAre(1, 0, 1));
  write({1, 2, 3}, {});
  EXPECT_THAT(names_in(folder.path()), ElementsAre("data.bin", "data.idx"));
  EXPECT_THAT(weights_of(IndexedReader(folder.path("data"), kVocab), 1), ElementsAre(1, 1, 1));
}

TEST(IndexedWriter, RefusesLabelsThatAMaskCannotSay) {
  const TestFolder folder;
  IndexedWriter writer(folder.path("data"), kVocab, Existing::kRefused);
  EXPECT_THAT(user_error([&] {
                writer.append(Sequence{1, 2}, Sequence{1, 3});
              }),
              HasSubstr("labels[1] of document 1 is 3 where the token is 2"));
}

TEST(IndexedWriter, LeavesNothingWhereItDoesNotFinish) {
  const TestFolder folder;
  {
    IndexedWriter writer(folder.path("data"), kVocab, Existing::kRefused);
    writer.append(Sequence(1 << 20, 1), Sequence(1 << 20, 1));
  }
  EXPECT_THAT(names_in(folder.path()), ElementsAre());
}

TEST(IndexedWriter, LeavesNothingToReadWhereItIsKilled) {
  const TestFolder folder;
  const pid_t child = fork();
  if (child == 0) {
    IndexedWriter writer(folder.path("data"), kVocab, Existing::kRefused);
    writer.append(Sequence(1 << 20, 1), Sequence(1 << 20, 1));
    raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_FALSE(names_in(folder.path()).empty());
  EXPECT_EQ(find_indexed(folder.path("data")), std::nullopt);
  write_data_set(folder.path("data"), {{{1, 2}}});
  EXPECT_THAT(names_in(folder.path()), ElementsAre("data.bin", "data.idx"));
}

TEST(IndexedWriter, ReplacesOnlyWhenTold) {
  const TestFolder folder;
  for (const std::string ending : {".idx", ".bin", ".mask"}) {
    folder.write("data" + ending, "precious");
    EXPECT_THAT(user_error([&] { write_data_set(folder.path("data"), {}); }),
                HasSubstr("data" + ending + ": exists already"));
    EXPECT_EQ(TestFolder::read(folder.path("data" + ending)), "precious");
    std::filesystem::remove(folder.path("data" + ending));
  }
  for (const std::string ending : {".idx", ".bin", ".mask"}) folder.write("data" + ending, "old");
  write_data_set(folder.path("data"), {{{1, 2}}}, kVocab, Existing::kReplaced);
  EXPECT_EQ(read_all(IndexedReader(folder.path("data"), kVocab)), DataSet({{{1, 2}}}));
  EXPECT_THAT(names_in(folder.path()), ElementsAre("data.bin", "data.idx"));
}

TEST(IndexedFiles, AreFoundByPrefixAndByEitherName) {
  const TestFolder folder;
  write_data_set(folder.path("data"), {{{1, 2}}});
  for (const std::string name : {"data", "data.bin", "data.idx"})
    EXPECT_EQ(find_indexed(folder.path(name)), folder.path("data")) << name;
  std::filesystem::create_directory(folder.path("data"));  // Megatron keeps its cache in there
  EXPECT_EQ(find_indexed(folder.path("data")), folder.path("data"));
  EXPECT_EQ(find_indexed(folder.path("other.bin")), std::nullopt);
  const std::string jsonl = folder.write("train.jsonl", "{}");
  folder.write("train.jsonl.idx", "somebody else's");
  EXPECT_EQ(find_indexed(jsonl), std::nullopt);
}

}  // namespace
}  // namespace mixtune
