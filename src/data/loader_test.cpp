#include "data/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/count_allocations.h"
#include "base/random.h"
#include "data/label.h"
#include "data/memory_documents.h"
#include "data/test_batch.h"
#include "data/test_folder.h"
#include "data/window_rows.h"

namespace mixtune {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;

// Documents whose first token is their number, so that a batch tells which ones it holds.
MemoryDocuments random_documents(int32_t count, int64_t longest, uint64_t seed, bool weighted = false) {
  MemoryDocuments documents;
  for (int32_t d = 0; d < count; ++d) {
    const uint64_t key = random_bits(seed, d);
    const auto length = static_cast<int64_t>(2 + random_below(key, 0, longest - 1));
    std::vector<int32_t> ids(length), labels(length);
    for (int64_t i = 0; i < length; ++i) {
      ids[i] = i == 0 ? d : static_cast<int32_t>(random_below(key, i, 1000));
      labels[i] = i + 1 == length || random_below(key, 7777 + i, 3) > 0 ? ids[i] : kIgnoreTarget;
    }
    std::vector<float> weights(weighted ? length : 0);
    for (size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<float>(0.1 + random_uniform(key, 9999 + i));
    documents.append(ids, labels, weights);
  }
  return documents;
}

std::vector<float> weights_in(const Batch& batch) {
  const float* weights = batch.weights ? batch.weights.as<float>() : nullptr;
  return {weights, weights + (batch.weights ? batch.weights.rows() : 0)};
}

// The target of every row, kIgnoreTarget where it has none.
std::vector<int32_t> shifted_targets(const Batch& batch) {
  std::vector<int32_t> targets(batch.ids.elements(), kIgnoreTarget);
  const auto rows = values(batch.target_rows);
  EXPECT_EQ(rows.size(), values(batch.targets).size());
  EXPECT_EQ(std::ranges::adjacent_find(rows, std::ranges::greater_equal{}), rows.end());
  for (size_t i = 0; i < rows.size(); ++i) targets[rows[i]] = values(batch.targets)[i];
  return targets;
}

// What every batch must be, whatever is in it. The oracle walks the documents one token at a time.
void check_batch(const Batch& batch, const Documents& documents) {
  const auto ids = values(batch.ids), positions = values(batch.positions);
  const auto targets = shifted_targets(batch);
  const auto offsets = values(batch.doc_offsets);
  ASSERT_EQ(ids.size() % kRowAlignment, 0u);
  ASSERT_EQ(positions.size(), ids.size());
  ASSERT_LT(static_cast<int64_t>(ids.size()), batch.live_tokens + kRowAlignment);
  ASSERT_EQ(offsets.front(), 0);
  ASSERT_EQ(offsets.back(), batch.live_tokens);
  int64_t target_count = 0;
  std::vector<float> weights;
  for (size_t k = 0; k + 1 < offsets.size(); ++k) {
    const int32_t begin = offsets[k], length = offsets[k + 1] - begin;
    const int64_t d = ids[begin];
    ASSERT_EQ(documents.length(d), length);
    const Document document = read_document(documents, d);
    for (int32_t i = 0; i < length; ++i) {
      EXPECT_EQ(ids[begin + i], document.ids[i]);
      EXPECT_EQ(positions[begin + i], i);
      const int32_t next = i + 1 < length ? document.labels[i + 1] : kIgnoreTarget;
      EXPECT_EQ(targets[begin + i], next);
      target_count += next != kIgnoreTarget;
      if (next != kIgnoreTarget && !document.weights.empty()) weights.push_back(document.weights[i + 1]);
    }
  }
  EXPECT_EQ(batch.target_tokens(), target_count);
  EXPECT_EQ(static_cast<bool>(batch.weights), documents.totals().weighted);
  EXPECT_EQ(weights_in(batch), weights);
  for (size_t i = batch.live_tokens; i < ids.size(); ++i) {
    EXPECT_EQ(ids[i], 0);
    EXPECT_EQ(targets[i], kIgnoreTarget);
    EXPECT_EQ(positions[i], 0);
  }
}

std::vector<int32_t> documents_in(const Step& step) {
  std::vector<int32_t> found;
  for (const Batch& batch : step.micro_batches) {
    const auto offsets = values(batch.doc_offsets);
    for (size_t k = 0; k + 1 < offsets.size(); ++k) found.push_back(batch.ids.as<int32_t>()[offsets[k]]);
  }
  return found;
}

TEST(Loader, ASmallBatchInFull) {
  MemoryDocuments documents;
  documents.append(std::vector{1, 5, 6, 2}, std::vector{-100, -100, 6, 2});
  documents.append(std::vector{1, 7}, std::vector{1, 7});
  Loader loader(documents, {.max_seq_length = 8, .packing = true, .epochs = 1}, 1, 1);
  ASSERT_EQ(loader.steps(), 1);
  const Step& step = loader.load(0);
  ASSERT_EQ(step.micro_batches.size(), 1u);
  const Batch& batch = step.micro_batches[0];
  EXPECT_EQ(batch.ids.shape, Shape({128}));
  EXPECT_THAT(values(batch.ids).first(7), ElementsAre(1, 5, 6, 2, 1, 7, 0));
  EXPECT_THAT(values(batch.target_rows), ElementsAre(1, 2, 4));
  EXPECT_THAT(values(batch.targets), ElementsAre(6, 2, 7));
  EXPECT_THAT(values(batch.positions).first(7), ElementsAre(0, 1, 2, 3, 0, 1, 0));
  EXPECT_THAT(values(batch.doc_offsets), ElementsAre(0, 4, 6));
  EXPECT_EQ(batch.live_tokens, 6);
  EXPECT_EQ(batch.target_tokens(), 3);
  EXPECT_EQ(step.live_tokens, 6);
  EXPECT_EQ(step.squared_lengths, 4 * 4 + 2 * 2);
  EXPECT_EQ(step.target_tokens, 3);
  EXPECT_EQ(step.documents, 2);
  EXPECT_EQ(step.epoch, 1);
}

// The rows of a step in order, whichever rank and accumulation step has them.
TEST(Loader, TokensAreNumberedOverTheGlobalBatch) {
  MemoryDocuments documents;
  for (int32_t length = 2; length <= 9; ++length) {
    std::vector<int32_t> ids(length, length);
    documents.append(ids, ids);
  }
  const PlanOptions options = {.max_seq_length = 16, .epochs = 1};
  Loader alone(documents, options, 8, 1);
  const Tensor all = alone.load(0).micro_batches[0].ids;
  for (const auto& [ranks, micro_batches] : {std::pair(1, 4), std::pair(2, 2), std::pair(4, 1), std::pair(2, 4)})
    for (int rank = 0; rank < ranks; ++rank) {
      Loader loader(documents, options, 8 / ranks / micro_batches, micro_batches, HostMemory::kPageable, {rank, ranks});
      for (const Batch& batch : loader.load(0).micro_batches)
        for (int64_t i = 0; i < batch.live_tokens; ++i)
          EXPECT_EQ(batch.ids.as<int32_t>()[i], all.as<int32_t>()[batch.first_token + i]);
    }
}

TEST(Loader, ASmallWeightedBatchInFull) {
  MemoryDocuments documents;
  documents.append(std::vector{1, 7, 8}, std::vector{1, 7, 8});
  documents.append(std::vector{1, 5, 6, 2}, std::vector{-100, -100, 6, 2}, std::vector{9.0F, 9.0F, 0.5F, 2.0F});
  documents.append(std::vector{1, 7}, std::vector{1, 7});
  EXPECT_TRUE(documents.totals().weighted);
  for (const Share share : {Share{0, 1}, Share{0, 3}, Share{1, 3}, Share{2, 3}}) {
    Loader loader(documents, {.max_seq_length = 8, .epochs = 1}, share.ranks == 1 ? 3 : 1, 1, HostMemory::kPageable,
                  share);
    const Step& step = loader.load(0);
    EXPECT_EQ(step.target_tokens, 5);
    EXPECT_EQ(step.target_weight, 5.5);
    const std::vector<float> expected = share.ranks == 1  ? std::vector<float>{1, 1, 0.5, 2, 1}
                                        : share.rank == 0 ? std::vector<float>{1, 1}
                                        : share.rank == 1 ? std::vector<float>{0.5, 2}
                                                          : std::vector<float>{1};
    EXPECT_EQ(weights_in(step.micro_batches[0]), expected) << share.rank << " of " << share.ranks;
  }
}

TEST(Loader, TheSumOfWeightsIsOfTheSameBitsOnEveryLayout) {
  const MemoryDocuments documents = random_documents(203, 60, 8, true);
  const PlanOptions options{.max_seq_length = 100, .packing = true, .shuffle = true, .seed = 2, .epochs = 2};
  Loader reference(documents, options, 12, 1);
  for (const auto& [rows, batches, ranks] :
       {std::tuple(1, 12, 1), std::tuple(3, 4, 1), std::tuple(3, 1, 4), std::tuple(2, 3, 2), std::tuple(1, 4, 3)}) {
    for (int rank = 0; rank < ranks; ++rank) {
      Loader loader(documents, options, rows, batches, HostMemory::kPageable, {rank, ranks});
      for (int64_t s = 0; s < loader.steps(); ++s)
        EXPECT_EQ(loader.load(s).target_weight, reference.load(s).target_weight) << ranks << " ranks, step " << s;
    }
  }
}

TEST(Loader, WithoutWeightsTheirSumIsTheNumberOfTargets) {
  const MemoryDocuments documents = random_documents(20, 60, 8);
  Loader loader(documents, {.max_seq_length = 60, .epochs = 1}, 20, 1);
  EXPECT_FALSE(loader.weighted());
  EXPECT_EQ(loader.load(0).target_weight, static_cast<double>(loader.load(0).target_tokens));
}

class LoaderBatches : public testing::TestWithParam<bool> {};

INSTANTIATE_TEST_SUITE_P(Weighted, LoaderBatches, testing::Bool());

TEST_P(LoaderBatches, AreRightWhateverTheOptions) {
  const MemoryDocuments documents = random_documents(300, 150, 5, GetParam());
  for (const bool packing : {false, true}) {
    for (const bool shuffle : {false, true}) {
      Loader loader(documents,
                    {.max_seq_length = 200, .packing = packing, .shuffle = shuffle, .seed = 1, .epochs = 2.5}, 3, 4);
      for (int64_t s = 0; s < loader.steps(); ++s) {
        const Step& step = loader.load(s);
        int64_t live = 0, targets = 0;
        for (const Batch& batch : step.micro_batches) {
          check_batch(batch, documents);
          EXPECT_LE(batch.ids.elements(), loader.max_batch_tokens());
          live += batch.live_tokens;
          targets += batch.target_tokens();
        }
        EXPECT_EQ(step.live_tokens, live);
        EXPECT_EQ(step.target_tokens, targets);
        EXPECT_GT(step.target_tokens, 0);
      }
    }
  }
}

TEST(Loader, EveryDocumentOnceAnEpoch) {
  const MemoryDocuments documents = random_documents(200, 50, 6);
  Loader loader(documents, {.max_seq_length = 64, .packing = true, .shuffle = true, .seed = 1, .epochs = 3}, 2, 2);
  std::vector<int> seen(documents.size());
  int64_t count = 0;
  for (int64_t s = 0; s < loader.steps(); ++s) {
    const Step& step = loader.load(s);
    for (const int32_t d : documents_in(step)) ++seen[d];
    count += step.documents;
  }
  EXPECT_EQ(std::ranges::count(seen, 3), documents.size());
  EXPECT_EQ(count, 3 * documents.size());
}

TEST(Loader, TheSplitInMicroBatchesDoesNotChangeAStep) {
  const MemoryDocuments documents = random_documents(203, 60, 8);
  const PlanOptions options{.max_seq_length = 100, .packing = true, .shuffle = true, .seed = 2, .epochs = 2};
  Loader reference(documents, options, 12, 1);
  for (const auto& [rows, batches] : {std::pair(1, 12), std::pair(2, 6), std::pair(3, 4), std::pair(6, 2)}) {
    Loader loader(documents, options, rows, batches);
    ASSERT_EQ(loader.steps(), reference.steps());
    for (int64_t s = 0; s < loader.steps(); ++s) {
      EXPECT_EQ(documents_in(loader.load(s)), documents_in(reference.load(s)));
      EXPECT_EQ(loader.load(s).target_tokens, reference.load(s).target_tokens);
      EXPECT_EQ(loader.load(s).epoch, reference.load(s).epoch);
    }
  }
}

TEST(Loader, TheLastStepIsShortAndHasNoEmptyMicroBatch) {
  const MemoryDocuments documents = random_documents(10, 20, 8);
  Loader loader(documents, {.max_seq_length = 20, .epochs = 1}, 2, 3);
  ASSERT_EQ(loader.steps(), 2);
  EXPECT_EQ(loader.load(0).micro_batches.size(), 3u);
  EXPECT_EQ(loader.load(0).epoch, 0.6);
  const Step& last = loader.load(1);
  EXPECT_EQ(last.micro_batches.size(), 2u);
  EXPECT_EQ(last.documents, 4);
  EXPECT_EQ(last.epoch, 1);
  EXPECT_THAT(documents_in(last), ElementsAre(6, 7, 8, 9));
}

TEST(Loader, AStepMayCrossEpochs) {
  const MemoryDocuments documents = random_documents(3, 20, 8);
  Loader loader(documents, {.max_seq_length = 20}, 4, 2);
  EXPECT_THAT(documents_in(loader.load(0)), ElementsAre(0, 1, 2, 0, 1, 2, 0, 1));
  EXPECT_THAT(documents_in(loader.load(1)), ElementsAre(2, 0, 1, 2, 0, 1, 2, 0));
  EXPECT_GT(loader.steps(), int64_t{1} << 50);
  check_batch(loader.load(1).micro_batches[1], documents);
}

TEST(Loader, StepsMayBeLoadedInAnyOrder) {
  const MemoryDocuments documents = random_documents(100, 40, 8);
  const PlanOptions options{.max_seq_length = 64, .packing = true, .shuffle = true, .seed = 2, .epochs = 4};
  Loader forward(documents, options, 3, 2), backward(documents, options, 3, 2);
  std::vector<std::vector<int32_t>> steps;
  for (int64_t s = 0; s < forward.steps(); ++s) steps.push_back(documents_in(forward.load(s)));
  for (int64_t s = forward.steps() - 1; s >= 0; --s) EXPECT_EQ(documents_in(backward.load(s)), steps[s]);
}

TEST_P(LoaderBatches, AreLoadedWithoutAllocating) {
  const MemoryDocuments documents = random_documents(50, 40, 8, GetParam());
  for (const bool packing : {false, true}) {
    Loader loader(documents, {.max_seq_length = 40, .packing = packing, .shuffle = true, .epochs = 1}, 2, 2);
    loader.load(0);
    const int64_t before = allocation_count().made;
    for (int64_t s = 1; s < loader.steps(); ++s) loader.load(s);
    EXPECT_EQ(allocation_count().made, before);
  }
}

TEST(Loader, LoadingWindowsAllocatesNothing) {
  const auto data = std::make_shared<const WindowData>(source_path("tests/fixtures/indexed/windows"), 5000);
  for (const bool reset : {false, true}) {
    const WindowRowOptions options{.seq_length = 8, .samples = 40, .masking = {.reset_attention_mask = reset}};
    Loader loader(std::make_unique<WindowRows>(std::vector<WindowSet>{{data, {0, 12}, 1}}, options, ""), 2, 2);
    const int64_t before = allocation_count().made;
    for (int64_t s = 0; s < loader.steps(); ++s) loader.load(s);
    EXPECT_EQ(allocation_count().made, before);
  }
}

TEST(Loader, BuffersAreMadeOnce) {
  const MemoryDocuments documents = random_documents(50, 40, 8);
  Loader loader(documents, {.max_seq_length = 40, .shuffle = true, .epochs = 2}, 4, 2);
  const Batch* batches = loader.load(0).micro_batches.data();
  const void* ids = batches[1].ids.data;
  for (int64_t s = 1; s < loader.steps(); ++s) {
    const Step& step = loader.load(s);
    EXPECT_EQ(step.micro_batches.data(), batches);
    if (step.micro_batches.size() == 2) {
      EXPECT_EQ(step.micro_batches[1].ids.data, ids);
    }
  }
}

TEST(Loader, BatchesAreNoLargerThanTheData) {
  const MemoryDocuments documents = random_documents(3, 20, 8);
  Loader loader(documents, {.max_seq_length = int64_t{1} << 40, .packing = true, .epochs = 1}, 1000000, 1000000);
  EXPECT_EQ(loader.max_batch_tokens(), 128);
  EXPECT_EQ(loader.load(0).documents, 3);
}

TEST(Loader, RefusesBatchesBeyondAnyMemory) {
  const MemoryDocuments documents = random_documents(3, 20, 8);
  const PlanOptions endless{.max_seq_length = 20};
  for (const auto& [rows, batches] :
       {std::pair<int64_t, int64_t>(int64_t{1} << 31, 1), {int64_t{1} << 40, int64_t{1} << 40}, {1, int64_t{1} << 60}})
    EXPECT_THAT(user_error([&] { Loader(documents, endless, rows, batches); }),
                HasSubstr("lower per_device_train_batch_size"));
}

}  // namespace
}  // namespace mixtune
