#include "data/batch_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/count_allocations.h"
#include "base/error.h"
#include "data/label.h"

namespace mixtune {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::IsEmpty;

template <class T = int32_t>
std::span<const T> values(const Tensor& tensor) {
  return {tensor.as<T>(), static_cast<size_t>(tensor.elements())};
}

// A row of documents [10, 11, 12] and [13, 10], in which the tokens 11 and 10 are targets.
RowCounts read_row(const RowRoom& room) {
  std::ranges::copy(std::vector{10, 11, 12, 13, 10}, room.ids.begin());
  std::ranges::copy(std::vector{11, kIgnoreTarget, kIgnoreTarget, 10, kIgnoreTarget}, room.targets.begin());
  if (!room.weights.empty()) std::ranges::copy(std::vector{0.5F, 9.0F, 9.0F, 2.0F, 9.0F}, room.weights.begin());
  std::ranges::copy(std::vector{0, 3}, room.begins.begin());
  return {.tokens = 5, .targets = 2, .documents = 2};
}

TEST(BatchBuilder, RowsStandOneAfterTheOther) {
  BatchBuilder builder({.tokens = 10, .documents = 4});
  builder.begin();
  for (int row = 0; row < 2; ++row) builder.add(read_row(builder.room()));
  const Batch batch = builder.finish(7);
  EXPECT_EQ(batch.ids.rows(), kRowAlignment);
  EXPECT_THAT(values(batch.ids).first(10), ElementsAre(10, 11, 12, 13, 10, 10, 11, 12, 13, 10));
  EXPECT_THAT(values(batch.positions).first(10), ElementsAre(0, 1, 2, 0, 1, 0, 1, 2, 0, 1));
  EXPECT_THAT(values(batch.doc_offsets), ElementsAre(0, 3, 5, 8, 10));
  EXPECT_EQ(batch.host_doc_offsets.data, batch.doc_offsets.data);
  EXPECT_THAT(values(batch.target_rows), ElementsAre(0, 3, 5, 8));
  EXPECT_THAT(values(batch.targets), ElementsAre(11, 10, 11, 10));
  EXPECT_FALSE(batch.weights);
  EXPECT_THAT(values(batch.rows_by_id.ids), ElementsAre(10, 11, 12, 13));
  EXPECT_THAT(values(batch.rows_by_id.begin), ElementsAre(0, 4, 6, 8, 10));
  EXPECT_THAT(values(batch.rows_by_id.rows), ElementsAre(0, 4, 5, 9, 1, 6, 2, 7, 3, 8));
  EXPECT_EQ(batch.live_tokens, 10);
  EXPECT_EQ(batch.step_tokens, 17);
}

TEST(BatchBuilder, TokensOfSequencesStandWhereTheseGoOn) {
  BatchBuilder builder({.tokens = 9, .documents = 3, .cached = true, .row_multiple = 4});
  builder.begin();
  builder.add_to_sequence(std::vector{7, 8}, 5, 0);
  EXPECT_FALSE(builder.finish().continues);
  builder.begin();
  builder.add_to_sequence(std::vector{7, 8}, 5, 0);
  builder.add_to_sequence(std::vector{9, 10, 11}, 2, 40);
  const Batch batch = builder.finish();
  EXPECT_TRUE(batch.continues);
  EXPECT_THAT(values(batch.ids), ElementsAre(7, 8, 9, 10, 11, 0, 0, 0));
  EXPECT_THAT(values(batch.positions), ElementsAre(0, 1, 40, 41, 42, 0, 0, 0));
  EXPECT_THAT(values(batch.sequences), ElementsAre(5, 5, 2, 2, 2, 0, 0, 0));
  EXPECT_THAT(values(batch.doc_offsets), ElementsAre(0, 2, 5));
  EXPECT_EQ(batch.target_tokens(), 0);
}

TEST(BatchBuilder, WeightsAreThoseOfTheTargets) {
  BatchBuilder builder({.tokens = 9, .documents = 4, .weighted = true});
  builder.begin();
  builder.add(read_row(builder.room()));
  builder.add_document(std::vector{1, 2}, std::vector{1, 2});
  builder.add_document(std::vector{3, 4}, std::vector{3, 4}, std::vector{9.0F, 0.25F});
  EXPECT_THAT(values<float>(builder.finish().weights), ElementsAre(0.5F, 2.0F, 1.0F, 0.25F));
}

TEST(BatchBuilder, LabelsOfADocumentAreShifted) {
  BatchBuilder builder({.tokens = 8, .documents = 3});
  builder.begin();
  builder.add_document(std::vector{1, 5, 6, 2}, std::vector{1, kIgnoreTarget, 6, 2});
  builder.add_document(std::vector{7}, std::vector{7});
  builder.add_document(std::vector{8, 9}, {});
  const Batch batch = builder.finish();
  EXPECT_THAT(values(batch.target_rows), ElementsAre(1, 2));
  EXPECT_THAT(values(batch.targets), ElementsAre(6, 2));
  EXPECT_THAT(values(batch.doc_offsets), ElementsAre(0, 4, 5, 7));
  EXPECT_EQ(batch.step_tokens, batch.live_tokens);
}

TEST(BatchBuilder, BehindTheLiveRowsIsADeadTailWhateverWasThere) {
  BatchBuilder builder({.tokens = 300, .documents = 1});
  const std::vector<int32_t> ids(300, 3);
  for (const auto& [live, rows] : {std::pair(300, 384), std::pair(129, 256), std::pair(128, 128), std::pair(0, 128)}) {
    builder.begin();
    const std::span document = std::span(ids).first(static_cast<size_t>(live));
    if (live > 0) builder.add_document(document, document);
    const Batch batch = builder.finish();
    EXPECT_EQ(batch.live_tokens, live);
    EXPECT_EQ(batch.ids.rows(), rows);
    EXPECT_EQ(batch.target_tokens(), std::max(live - 1, 0));
    EXPECT_EQ(values(batch.doc_offsets).back(), live);
    EXPECT_EQ(batch.rows_by_id.ids.rows(), live > 0 ? 1 : 0);
    EXPECT_THAT(values(batch.ids).subspan(live), Each(0));
    EXPECT_THAT(values(batch.positions).subspan(live), Each(0));
  }
}

TEST(BatchBuilder, BatchesInOtherPlacesStayAndNothingIsAllocated) {
  BatchBuilder builder({.tokens = 5, .documents = 2}, HostMemory::kPageable, 2);
  ASSERT_EQ(builder.batches(), 2);
  builder.begin(0);
  builder.add(read_row(builder.room()));
  const Batch first = builder.finish();
  const std::vector<int32_t> other = {1, 2, 3};
  const int64_t before = allocation_count().made;
  builder.begin(1);
  builder.add_document(other, other);
  const Batch second = builder.finish();
  EXPECT_EQ(allocation_count().made, before);
  EXPECT_THAT(values(first.ids).first(5), ElementsAre(10, 11, 12, 13, 10));
  EXPECT_THAT(values(first.targets), ElementsAre(11, 10));
  EXPECT_THAT(values(second.ids).first(3), ElementsAre(1, 2, 3));
}

TEST(BatchBuilder, RoomIsWhatIsLeftAndMoreIsABug) {
  BatchBuilder builder({.tokens = 5, .documents = 2});
  EXPECT_THROW(builder.room(), std::logic_error);
  builder.begin();
  builder.add_document(std::vector{1, 2, 3}, {});
  EXPECT_EQ(builder.room().ids.size(), 2u);
  EXPECT_EQ(builder.room().targets.size(), 2u);
  EXPECT_EQ(builder.room().begins.size(), 1u);
  EXPECT_THAT(builder.room().weights, IsEmpty());
  EXPECT_THROW(builder.add_document(std::vector{1, 2, 3}, {}), std::logic_error);
  EXPECT_THROW(builder.begin(1), std::logic_error);
}

}  // namespace
}  // namespace mixtune
