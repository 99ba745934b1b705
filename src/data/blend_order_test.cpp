#include "data/blend_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>

#include "data/blend.h"
#include "data/joined_documents.h"
#include "data/memory_documents.h"
#include "data/plan.h"

namespace mixtune {
namespace {

using testing::ElementsAre;

const std::vector<BlendPart> kParts = {{.documents = 10, .weight = 3}, {.documents = 30, .weight = 1}};

TEST(BlendOrder, PartsComeByTheGreedyRule) {
  Blend blend = Blend::of_weights(std::vector<double>{3, 1}, "");
  for (const uint32_t document : blend_order(kParts, true, 7)) EXPECT_EQ(document >= 10, blend.next().data_set == 1);
}

TEST(BlendOrder, APartGivesAllItHasBeforeItBeginsAnew) {
  const std::vector<uint32_t> order = blend_order(kParts, true, 7);
  ASSERT_EQ(order.size(), 40u);
  std::vector<uint32_t> first, second;
  for (const uint32_t document : order) (document < 10 ? first : second).push_back(document);
  ASSERT_EQ(first.size(), 30u);
  for (int pass = 0; pass < 3; ++pass)
    EXPECT_EQ(std::set(first.begin() + pass * 10, first.begin() + pass * 10 + 10).size(), 10u) << pass;
  EXPECT_FALSE(std::equal(first.begin(), first.begin() + 10, first.begin() + 10));
  EXPECT_EQ(std::set(second.begin(), second.end()).size(), 10u);
  EXPECT_FALSE(std::ranges::is_sorted(second));
  EXPECT_NE(order, blend_order(kParts, true, 8));
  EXPECT_EQ(order, blend_order(kParts, true, 7));
}

TEST(BlendOrder, WithoutShufflingPartsKeepTheirOrder) {
  EXPECT_THAT(blend_order(std::vector<BlendPart>{{2, 1}, {3, 1}}, false, 7), ElementsAre(0, 2, 1, 3, 0));
}

std::shared_ptr<MemoryDocuments> documents(int32_t first, int count) {
  const auto made = std::make_shared<MemoryDocuments>();
  for (int32_t i = 0; i < count; ++i) made->append(std::vector{first + i, 1}, std::vector{-100, 1});
  made->append({}, {});
  return made;
}

TEST(JoinedDocuments, AreThoseOfTheParts) {
  const JoinedDocuments all({documents(10, 2), documents(20, 0), documents(30, 3)});
  EXPECT_EQ(all.totals(), (DocumentTotals{.documents = 5, .tokens = 10, .targets = 5, .max_length = 2, .records = 8}));
  std::vector<int32_t> first;
  std::vector<int64_t> records;
  for (int64_t d = 0; d < all.size(); ++d) {
    first.push_back(read_document(all, d).ids[0]);
    records.push_back(all.record(d));
    EXPECT_EQ(all.length(d), 2);
    EXPECT_EQ(all.targets(d), 1);
  }
  EXPECT_THAT(first, ElementsAre(10, 11, 30, 31, 32));
  EXPECT_THAT(records, ElementsAre(0, 1, 4, 5, 6));
  EXPECT_NE(all.digest(), JoinedDocuments({documents(10, 2), documents(30, 3)}).digest());
}

TEST(BlendPlan, RowsAreInTheOrderOfTheBlend) {
  const JoinedDocuments all({documents(10, 10), documents(20, 30)});
  PlanOptions options{.max_seq_length = 4, .shuffle = true, .seed = 5, .blend = kParts};
  const EpochPlan plan = plan_epoch(all, options, 0);
  EXPECT_EQ(plan.rows(), 40);
  EXPECT_EQ(std::ranges::count_if(plan.documents, [](uint32_t d) { return d < 10; }), 30);
  EXPECT_NE(plan.documents, plan_epoch(all, options, 1).documents);
  options.packing = true;
  const EpochPlan packed = plan_epoch(all, options, 0);
  EXPECT_EQ(packed.rows(), 20);
  EXPECT_THAT(packed.row(0), ElementsAre(plan.documents[0], plan.documents[1]));
  EXPECT_EQ(RowSequence(all, options).rows(), RowSequence::kEndless);
}

}  // namespace
}  // namespace mixtune
