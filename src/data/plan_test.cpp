#include "data/plan.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <numeric>

#include "base/random.h"
#include "data/memory_documents.h"
#include "data/status_bytes.h"
#include "data/test_folder.h"

namespace mixtune {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

MemoryDocuments documents_of(const std::vector<int64_t>& lengths) {
  MemoryDocuments documents;
  for (const int64_t length : lengths) {
    const std::vector<int32_t> ids(length, 1);
    documents.append(ids, ids);
  }
  return documents;
}

std::vector<int64_t> random_lengths(int64_t count, int64_t longest, uint64_t seed) {
  std::vector<int64_t> lengths(count);
  for (int64_t i = 0; i < count; ++i) lengths[i] = 2 + static_cast<int64_t>(random_below(seed, i, longest - 1));
  return lengths;
}

std::vector<std::vector<int64_t>> rows_of(const EpochPlan& plan) {
  std::vector<std::vector<int64_t>> rows;
  for (int64_t r = 0; r < plan.rows(); ++r) rows.emplace_back(plan.row(r).begin(), plan.row(r).end());
  return rows;
}

template <class Value>
std::vector<Value> shuffled(std::vector<Value> values, uint64_t key) {
  for (size_t n = values.size(); n > 1; --n) std::swap(values[n - 1], values[random_below(key, n, n)]);
  return values;
}

// The plan by its definition, with all the memory that takes.
std::vector<std::vector<int64_t>> planned_plainly(const Documents& documents, const PlanOptions& options,
                                                  int64_t epoch) {
  const uint64_t seed = random_bits(options.seed, static_cast<uint64_t>(epoch));
  std::vector<int64_t> order(documents.size());
  std::iota(order.begin(), order.end(), 0);
  if (options.shuffle) order = shuffled(order, random_key(seed, "documents"));
  std::vector<std::vector<int64_t>> rows;
  std::vector<std::pair<size_t, int64_t>> open;  // row, room
  for (const int64_t d : order) {
    const int64_t length = documents.length(d);
    auto best = open.end();
    for (auto row = open.begin(); options.packing && row != open.end(); ++row)
      if (row->second >= length && (best == open.end() || row->second < best->second)) best = row;
    if (best == open.end()) {
      if (open.size() == 64) best = std::ranges::min_element(open, {}, &std::pair<size_t, int64_t>::second);
      if (best == open.end()) best = open.emplace(open.end());
      *best = {rows.size(), options.max_seq_length};
      rows.emplace_back();
    }
    best->second -= length;
    rows[best->first].push_back(d);
  }
  if (!options.shuffle) return rows;
  std::vector<size_t> places(rows.size());
  std::iota(places.begin(), places.end(), 0);
  places = shuffled(places, random_key(seed, "rows"));
  std::vector<std::vector<int64_t>> placed(rows.size());
  for (size_t r = 0; r < rows.size(); ++r) placed[places[r]] = rows[r];
  return placed;
}

TEST(PlanEpoch, IsWhatItsDefinitionSays) {
  for (const int64_t count : {0, 1, 2, 3, 64, 65, 300, 4000})
    for (const int64_t longest : {2, 30, 100}) {
      const MemoryDocuments documents = documents_of(random_lengths(count, longest, 6));
      for (const bool packing : {false, true})
        for (const bool shuffle : {false, true}) {
          const PlanOptions options{.max_seq_length = 100, .packing = packing, .shuffle = shuffle, .seed = 8};
          EXPECT_EQ(rows_of(plan_epoch(documents, options, 3)), planned_plainly(documents, options, 3))
              << count << " documents of up to " << longest << " tokens, " << packing << shuffle;
        }
    }
}

TEST(PlanEpoch, EveryDocumentOnceAndNoRowTooLong) {
  for (const uint64_t seed : {1, 2, 3}) {
    const MemoryDocuments documents = documents_of(random_lengths(2000, 100, seed));
    for (const bool packing : {false, true}) {
      for (const bool shuffle : {false, true}) {
        const PlanOptions options{.max_seq_length = 100, .packing = packing, .shuffle = shuffle, .seed = seed};
        std::vector<int> seen(documents.size());
        for (const auto& row : rows_of(plan_epoch(documents, options, 5))) {
          int64_t tokens = 0;
          for (const int64_t d : row) {
            ++seen[d];
            tokens += documents.length(d);
          }
          EXPECT_LE(tokens, 100);
          EXPECT_GE(row.size(), 1u);
          EXPECT_TRUE(packing || row.size() == 1);
        }
        EXPECT_EQ(std::ranges::count(seen, 1), documents.size());
      }
    }
  }
}

// Documents that have lengths, and no memory.
class MadeUpDocuments : public Documents {
 public:
  explicit MadeUpDocuments(int64_t count) {
    totals_.documents = count;
    totals_.max_length = 1000;
  }
  const DocumentTotals& totals() const override { return totals_; }
  int64_t length(int64_t d) const override { return 2 + static_cast<int64_t>(random_below(3, d, 999)); }
  using Documents::targets;
  int64_t targets(int64_t d) const override { return length(d) - 1; }
  int64_t record(int64_t d) const override { return d; }
  void read(int64_t, std::span<int32_t>, std::span<int32_t>) const override {}
  void read_weights(int64_t, std::span<float>) const override {}
  uint64_t digest() const override { return 0; }

 private:
  DocumentTotals totals_;
};

// The most bytes for each document that this process has in memory while it plans two epochs, one after the other.
double planned_bytes(int64_t count, const PlanOptions& options) {
  malloc_trim(0);                               // what was freed before is not to be taken again
  std::ofstream("/proc/self/clear_refs") << 5;  // the peak begins anew
  const int64_t before = status_bytes("VmRSS");
  const MadeUpDocuments documents(count);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);  // the epochs' plans are not to lie side by side
  RowSequence rows(documents, options);
  omp_set_num_threads(threads);
  EXPECT_FALSE(rows.row(0).empty());
  EXPECT_FALSE(rows.row(rows.rows() - 1).empty());
  return static_cast<double>(status_bytes("VmHWM") - before) / static_cast<double>(count);
}

TEST(PlanEpoch, TakesFewBytesADocument) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "AddressSanitizer keeps what is freed";
#endif
  const char* more = std::getenv("MIXTUNE_TEST_DOCUMENTS");  // for figures: 100000000
  const int64_t count = more ? std::atoll(more) : 2'000'000;
  const auto begin = std::chrono::steady_clock::now();
  const double plain = planned_bytes(count, {.max_seq_length = 1000, .shuffle = true, .epochs = 2});
  const auto middle = std::chrono::steady_clock::now();
  const double packed = planned_bytes(count, {.max_seq_length = 2048, .packing = true, .shuffle = true, .epochs = 2});
  const auto end = std::chrono::steady_clock::now();
  fmt::print("{} documents, two epochs: {:.2f} bytes each and {:.1f} s; packed {:.2f} bytes and {:.1f} s\n", count,
             plain, std::chrono::duration<double>(middle - begin).count(), packed,
             std::chrono::duration<double>(end - middle).count());
  EXPECT_LT(plain, 4.3);
  EXPECT_LT(packed, 6.3);
}

TEST(PlanEpoch, PackingWastesLittle) {
  const MemoryDocuments documents = documents_of(random_lengths(5000, 200, 9));
  const auto plan = plan_epoch(documents, {.max_seq_length = 1024, .packing = true, .shuffle = true, .seed = 1}, 0);
  EXPECT_LT(plan.rows() * 1024, documents.tokens() * 102 / 100);
}

TEST(PlanEpoch, KeepsTheOrderWithoutShuffle) {
  const MemoryDocuments documents = documents_of({6, 6, 4, 3, 4});
  EXPECT_THAT(rows_of(plan_epoch(documents, {.max_seq_length = 10}, 0)),
              ElementsAre(ElementsAre(0), ElementsAre(1), ElementsAre(2), ElementsAre(3), ElementsAre(4)));
  EXPECT_THAT(rows_of(plan_epoch(documents, {.max_seq_length = 10, .packing = true}, 0)),
              ElementsAre(ElementsAre(0, 2), ElementsAre(1, 3), ElementsAre(4)));
}

TEST(PlanEpoch, PacksInTheFullestOpenRowAndHoldsAtMost64) {
  EXPECT_THAT(rows_of(plan_epoch(documents_of({5, 8, 2, 5}), {.max_seq_length = 10, .packing = true}, 0)),
              ElementsAre(ElementsAre(0, 3), ElementsAre(1, 2)));
  std::vector<int64_t> lengths(65, 6);
  lengths[64] = 7;  // the 65th row closes the first, which then has no more room to give
  lengths.insert(lengths.end(), 65, 4);
  const auto rows = rows_of(plan_epoch(documents_of(lengths), {.max_seq_length = 10, .packing = true}, 0));
  ASSERT_EQ(rows.size(), 66u);
  EXPECT_THAT(rows[0], ElementsAre(0));
  EXPECT_THAT(rows[1], ElementsAre(1, 65));
  EXPECT_THAT(rows[64], ElementsAre(64));
  EXPECT_THAT(rows[65], ElementsAre(128, 129));
}

TEST(PlanEpoch, SeedAndEpochDecide) {
  const MemoryDocuments documents = documents_of(random_lengths(100, 20, 4));
  const auto rows = [&](uint64_t seed, int64_t epoch) {
    return rows_of(
        plan_epoch(documents, {.max_seq_length = 64, .packing = true, .shuffle = true, .seed = seed}, epoch));
  };
  EXPECT_EQ(rows(1, 0), rows(1, 0));
  EXPECT_NE(rows(1, 0), rows(1, 1));
  EXPECT_NE(rows(1, 0), rows(2, 0));
  EXPECT_NE(rows(1, 1), rows(2, 0));
}

TEST(PlanEpoch, ShufflesEvenly) {
  const MemoryDocuments documents = documents_of({2, 2, 2, 2});
  std::vector<std::vector<int>> seen(4, std::vector<int>(4));
  for (int64_t epoch = 0; epoch < 4000; ++epoch) {
    const auto plan = plan_epoch(documents, {.max_seq_length = 2, .shuffle = true, .seed = 7}, epoch);
    for (int64_t r = 0; r < 4; ++r) ++seen[plan.row(r)[0]][r];
  }
  for (const auto& places : seen)
    for (const int count : places) EXPECT_NEAR(count, 1000, 150);  // 5.5 standard deviations
}

TEST(RowSequence, ConcatenatesEpochs) {
  const MemoryDocuments documents = documents_of(random_lengths(50, 20, 4));
  const PlanOptions options{.max_seq_length = 32, .packing = true, .shuffle = true, .seed = 3, .epochs = 3};
  std::vector<std::vector<int64_t>> expected;
  for (int64_t epoch = 0; epoch < 3; ++epoch)
    for (auto& row : rows_of(plan_epoch(documents, options, epoch))) expected.push_back(row);
  RowSequence sequence(documents, options);
  ASSERT_EQ(sequence.rows(), static_cast<int64_t>(expected.size()));
  for (int64_t r = 0; r < sequence.rows(); ++r) EXPECT_THAT(sequence.row(r), testing::ElementsAreArray(expected[r]));
  for (int64_t r = sequence.rows() - 1; r >= 0; --r)
    EXPECT_THAT(sequence.row(r), testing::ElementsAreArray(expected[r]));
}

TEST(RowSequence, AnyNumberOfThreadsCountsTheSameRows) {
  const MemoryDocuments documents = documents_of(random_lengths(500, 20, 4));
  const PlanOptions options{.max_seq_length = 32, .packing = true, .shuffle = true, .seed = 3, .epochs = 6.5};
  const int threads = omp_get_max_threads();
  std::vector<int64_t> counted;
  for (const int some : {1, 2, 5, 16}) {
    omp_set_num_threads(some);
    RowSequence sequence(documents, options);
    EXPECT_THAT(sequence.row(0), testing::ElementsAreArray(plan_epoch(documents, options, 0).row(0)));
    counted.push_back(sequence.rows());
  }
  omp_set_num_threads(threads);
  EXPECT_THAT(counted, testing::Each(counted[0]));
}

TEST(RowSequence, FractionalEpochs) {
  const MemoryDocuments documents = documents_of({2, 2, 2, 2, 2, 2, 2, 2, 2, 2});
  const auto rows = [&](double epochs) {
    return RowSequence(documents, {.max_seq_length = 2, .shuffle = true, .epochs = epochs}).rows();
  };
  EXPECT_EQ(rows(0), 0);
  EXPECT_EQ(rows(0.01), 1);
  EXPECT_EQ(rows(0.5), 5);
  EXPECT_EQ(rows(1), 10);
  EXPECT_EQ(rows(2.55), 26);
  EXPECT_EQ(rows(std::numeric_limits<double>::infinity()), RowSequence::kEndless);
  EXPECT_THAT(user_error([&] { rows(1e18); }), HasSubstr("num_train_epochs"));
}

// Decimals are not in binary what they look like: 1.1 - 1 is more than 0.1.
TEST(RowSequence, DecimalEpochsTakeNoRowTooMany) {
  const MemoryDocuments documents = documents_of(std::vector<int64_t>(10, 4));
  for (const auto& [epochs, rows] : {std::pair(0.3, 3), std::pair(1.1, 11), std::pair(2.1, 21), std::pair(1.15, 12)})
    EXPECT_EQ(RowSequence(documents, {.max_seq_length = 4, .epochs = epochs}).rows(), rows) << epochs;
}

TEST(RowSequence, CountsEpochsDone) {
  const MemoryDocuments documents = documents_of({2, 2, 2, 2});
  RowSequence sequence(documents, {.max_seq_length = 2, .shuffle = true});
  EXPECT_EQ(sequence.epochs_done(0), 0);
  EXPECT_EQ(sequence.epochs_done(1), 0.25);
  EXPECT_EQ(sequence.epochs_done(4), 1);
  EXPECT_EQ(sequence.epochs_done(10), 2.5);
}

}  // namespace
}  // namespace mixtune
