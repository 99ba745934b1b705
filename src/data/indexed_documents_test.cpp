#include "data/indexed_documents.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/random.h"
#include "data/indexed_sink.h"
#include "data/load_documents.h"
#include "data/loader.h"
#include "data/preprocess.h"
#include "data/status_bytes.h"
#include "data/test_batch.h"
#include "data/test_folder.h"
#include "data/validation_split.h"

namespace mixtune {
namespace {

constexpr int64_t kStoredVocab = 1000;

struct Extras {
  bool masked = true, weighted = false;
};
constexpr std::array kExtras = {Extras{false, false}, Extras{true, false}, Extras{false, true}, Extras{true, true}};

// Gives records of one or more documents, some without a target. A masked kind has about a third of the labels trained,
// a weighted one weights other than 1 in about half of the documents.
void give_documents(DocumentSink& sink, int64_t count, int64_t longest, uint64_t seed, Extras kind = {}) {
  for (int64_t d = 0; d < count; ++d) {
    const uint64_t key = random_bits(seed, static_cast<uint64_t>(d));
    const auto length = 1 + random_below(key, 0, static_cast<uint64_t>(longest));
    std::vector<int32_t> ids(length), labels(length);
    for (size_t i = 0; i < length; ++i) {
      ids[i] = static_cast<int32_t>(random_below(key, i + 1, kStoredVocab));
      labels[i] = !kind.masked || random_below(key, 7777 + i, 3) == 0 ? ids[i] : -100;
    }
    std::vector<float> weights(kind.weighted && random_below(key, 6, 2) == 0 ? length : 0);
    for (size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<float>(0.1 + random_uniform(key, 9999 + i));
    d > 0 && random_below(key, 5, 4) == 0 ? sink.append_piece(ids, labels, weights) : sink.append(ids, labels, weights);
  }
}

class IndexedDocumentsTest : public testing::Test {
 protected:
  // Stores these documents in files.
  std::shared_ptr<const Documents> stored(const MemoryDocuments& documents, const std::string& name = "stored") {
    write_indexed(documents, folder_.path(name), kStoredVocab, true);
    return std::make_shared<IndexedDocuments>(IndexedReader(folder_.path(name), kStoredVocab),
                                              SequenceFit{.max_seq_length = 1 << 20}, documents.totals(),
                                              documents.digest());
  }

  std::shared_ptr<const Documents> in_place(const SequenceFit& fit, LoadCounts& counts) {
    return IndexedDocuments::open(IndexedReader(folder_.path("stored"), kStoredVocab), fit, "stored", counts);
  }

  TestFolder folder_;
};

void expect_same_steps(Loader& a, Loader& b) {
  ASSERT_EQ(a.steps(), b.steps());
  for (int64_t s = 0; s < a.steps(); ++s) {
    const Step &of_a = a.load(s), &of_b = b.load(s);
    EXPECT_EQ(of_a.live_tokens, of_b.live_tokens);
    EXPECT_EQ(of_a.target_tokens, of_b.target_tokens);
    EXPECT_EQ(of_a.target_weight, of_b.target_weight);
    EXPECT_EQ(of_a.documents, of_b.documents);
    ASSERT_EQ(of_a.micro_batches.size(), of_b.micro_batches.size());
    for (size_t i = 0; i < of_a.micro_batches.size(); ++i) {
      const Batch &x = of_a.micro_batches[i], &y = of_b.micro_batches[i];
      EXPECT_TRUE(std::ranges::equal(values(x.ids), values(y.ids)));
      EXPECT_TRUE(std::ranges::equal(values(x.targets), values(y.targets)));
      EXPECT_TRUE(std::ranges::equal(values(x.target_rows), values(y.target_rows)));
      ASSERT_TRUE(x.weights && y.weights);
      EXPECT_EQ(std::memcmp(x.weights.data, y.weights.data, x.weights.bytes()), 0);
      EXPECT_TRUE(std::ranges::equal(values(x.doc_offsets), values(y.doc_offsets)));
    }
  }
}

TEST_F(IndexedDocumentsTest, AreWhatTheyAreInMemory) {
  for (const Extras kind : kExtras) {
    MemoryDocuments documents;
    give_documents(documents, 1000, 700, 3, kind);
    EXPECT_TRUE(same_documents(*stored(documents), documents)) << kind.masked << kind.weighted;
    LoadCounts counts;
    const auto opened = in_place({.max_seq_length = 700}, counts);
    EXPECT_TRUE(same_documents(*opened, documents)) << kind.masked << kind.weighted;
    EXPECT_EQ(opened->totals(), documents.totals());
    EXPECT_EQ(documents.totals().weighted, kind.weighted);
    EXPECT_EQ(std::filesystem::exists(folder_.path("stored.weights")), kind.weighted);
    EXPECT_EQ(counts.truncated + counts.split, 0);
  }
}

TEST_F(IndexedDocumentsTest, ALoaderReadsTheSameOfThem) {
  MemoryDocuments documents;
  give_documents(documents, 300, 100, 4, {.weighted = true});
  const auto files = stored(documents);
  for (const bool packing : {false, true})
    for (const int ranks : {1, 2})
      for (int rank = 0; rank < ranks; ++rank) {
        const PlanOptions options{.max_seq_length = 128, .packing = packing, .shuffle = true, .seed = 1, .epochs = 2};
        Loader a(documents, options, 3, 2, HostMemory::kPageable, {rank, ranks}),
            b(*files, options, 3, 2, HostMemory::kPageable, {rank, ranks});
        expect_same_steps(a, b);
      }
}

TEST_F(IndexedDocumentsTest, PartsOfThemAreTheSame) {
  const auto documents = std::make_shared<MemoryDocuments>();
  give_documents(*documents, 500, 60, 9, {.weighted = true});
  const Split expected = split_validation(documents, 20, 3), parts = split_validation(stored(*documents), 20, 3);
  EXPECT_TRUE(same_documents(*parts.train, *expected.train));
  EXPECT_TRUE(same_documents(*parts.validation, *expected.validation));
  EXPECT_EQ(parts.train->digest(), expected.train->digest());
  EXPECT_NE(parts.train->digest(), parts.validation->digest());
}

// Documents are cut in place as those are that are read into memory.
TEST_F(IndexedDocumentsTest, AreCutAsLoadDocumentsCutsThem) {
  for (const Extras kind : kExtras) {
    MemoryDocuments documents;
    give_documents(documents, 400, 300, 5, kind);
    write_indexed(documents, folder_.path("stored"), kStoredVocab, true);
    const std::vector<std::string> files = {folder_.path("stored")};
    for (const LongDocuments policy : {LongDocuments::kSplit, LongDocuments::kTruncate})
      for (const int64_t longest : {2, 3, 5, 64, 299, 300, 5000}) {
        DataSettings settings;
        settings.long_documents = policy;
        settings.max_seq_length = longest;
        LoadCounts counts;
        const auto cut = in_place({policy, longest}, counts);
        testing::internal::CaptureStderr();
        EXPECT_TRUE(same_documents(*cut, load_documents(as_dataset(files), settings, {}, kStoredVocab)))
            << kind.masked << kind.weighted << ", max_seq_length " << longest
            << ", split: " << (policy == LongDocuments::kSplit);
        const std::string said = testing::internal::GetCapturedStderr();
        testing::internal::CaptureStderr();
        report_loaded(files[0], cut->totals(), counts, longest);
        EXPECT_EQ(testing::internal::GetCapturedStderr(), said);
      }
  }
}

TEST_F(IndexedDocumentsTest, WhatDoesNotFitIsRefusedWhereAsked) {
  MemoryDocuments documents;
  documents.append(std::vector{1, 2}, std::vector{1, 2});
  documents.append(std::vector{1, 2, 3}, std::vector{1, 2, 3});
  write_indexed(documents, folder_.path("stored"), kStoredVocab, false);
  LoadCounts counts;
  EXPECT_THAT(user_error([&] {
                in_place({LongDocuments::kError, 2}, counts);
              }),
              testing::HasSubstr("stored, sequence 1: the document of 3 tokens is longer than max_seq_length 2"));
}

TEST_F(IndexedDocumentsTest, DigestsDifferWhereDocumentsDo) {
  MemoryDocuments documents, other;
  give_documents(documents, 300, 20, 4);
  give_documents(other, 300, 20, 5);
  LoadCounts counts;
  stored(documents);
  const uint64_t first = in_place({.max_seq_length = 20}, counts)->digest();
  EXPECT_EQ(in_place({.max_seq_length = 20}, counts)->digest(), first);
  stored(other);
  EXPECT_NE(in_place({.max_seq_length = 20}, counts)->digest(), first);
}

// For 100 million tokens, 200 MB, a rank keeps a few bytes a document.
TEST_F(IndexedDocumentsTest, MemoryDoesNotGrowWithTheData) {
  constexpr int64_t kDocuments = 200'000, kTokens = 500, kLimit = 24 << 20;
  {
    IndexedSink sink(folder_.path("large"), kStoredVocab);
    std::vector<int32_t> ids(kTokens);
    for (int64_t d = 0; d < kDocuments; ++d) {
      std::ranges::fill(ids, static_cast<int32_t>(d % kStoredVocab));
      sink.append(ids, ids);
    }
    sink.finish();
  }
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    std::ofstream("/proc/self/clear_refs") << 5;  // the peak begins anew
    const int64_t before = status_bytes("VmRSS");
    LoadCounts counts;
    const auto documents = IndexedDocuments::open(IndexedReader(folder_.path("large"), kStoredVocab),
                                                  {.max_seq_length = 2000}, "", counts);
    Loader loader(*documents, {.max_seq_length = 2000, .packing = true, .shuffle = true, .epochs = 1}, 4, 1);
    int64_t tokens = 0;
    for (int64_t s = 0; s < loader.steps(); s += 10) tokens += loader.load(s).live_tokens;
    const int64_t grown = status_bytes("VmHWM") - before;
    fmt::print("{} tokens read, {} bytes more in memory\n", tokens, grown);
    std::fflush(nullptr);
    _exit(tokens > 9'000'000 && grown < kLimit ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace mixtune
