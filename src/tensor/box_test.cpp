#include "tensor/box.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/random.h"

namespace mixtune {
namespace {

using testing::ElementsAre;

class Dice {
 public:
  explicit Dice(uint64_t seed) : key_(random_key(seed, "boxes")) {}
  int64_t roll(int64_t sides) { return static_cast<int64_t>(random_below(key_, place_++, sides)); }

 private:
  uint64_t key_, place_ = 0;
};

Shape random_shape(Dice& dice) {
  std::array<int64_t, Shape::kMaxRank> dims{};
  const int rank = 1 + static_cast<int>(dice.roll(Shape::kMaxRank));
  for (int d = 0; d < rank; ++d) dims[d] = 1 + dice.roll(5);
  return {dims.data(), rank};
}

// Cuts `box` again and again along random dimensions, into parts that together are all of it.
std::vector<Box> random_cut(Dice& dice, const Box& box, int depth) {
  const int dim = static_cast<int>(dice.roll(box.shape().rank()));
  if (depth == 0 || box.shape()[dim] < 2) return {box};
  const int64_t at = 1 + dice.roll(box.shape()[dim] - 1);
  std::vector<Box> parts = random_cut(dice, box.cut(dim, 0, at), depth - 1);
  for (const Box& part : random_cut(dice, box.cut(dim, at, box.shape()[dim] - at), depth - 1)) parts.push_back(part);
  return parts;
}

// The boxes of a cut, each cut once more into flat ranges.
std::vector<BoxRange> random_ranges(Dice& dice, const Shape& shape) {
  std::vector<BoxRange> ranges;
  for (const Box& box : random_cut(dice, Box(shape), 4)) {
    const int64_t at = dice.roll(box.elements() + 1);
    ranges.push_back({box, 0, at});
    ranges.push_back({box, at, box.elements() - at});
  }
  return ranges;
}

TEST(BoxTest, RowsAreOneRunAndColumnsOneForEachRow) {
  const Box whole({4, 6}), rows = whole.cut(0, 1, 2), columns = whole.cut(1, 2, 3);
  EXPECT_TRUE(rows.contiguous());
  EXPECT_EQ(rows.place(0), 6);
  EXPECT_FALSE(columns.contiguous());
  EXPECT_EQ(columns.run_elements(), 3);
  EXPECT_EQ(columns.place(0), 2);
  EXPECT_EQ(columns.place(4), 9);
  EXPECT_EQ(columns.index(9), 4);
  std::vector<std::array<int64_t, 3>> runs;
  columns.for_each_run(1, 6, [&](int64_t index, int64_t place, int64_t n) { runs.push_back({index, place, n}); });
  EXPECT_THAT(runs, ElementsAre(std::array<int64_t, 3>{1, 3, 2}, std::array<int64_t, 3>{3, 8, 3},
                                std::array<int64_t, 3>{6, 14, 1}));
}

TEST(BoxTest, CutsOfACutCountFromIt) {
  const Box box = Box({8, 4}).cut(0, 2, 4).cut(0, 1, 2).cut(1, 3, 1);
  EXPECT_EQ(box.place(0), 3 * 4 + 3);
  EXPECT_EQ(box.place(1), 4 * 4 + 3);
  EXPECT_THROW(box.cut(0, 1, 2), std::logic_error);
  EXPECT_THROW((void)box.index(0), std::logic_error);
}

TEST(BoxTest, WhatTwoPartsShare) {
  const Box whole({3, 4});
  EXPECT_THAT(shared_runs({whole, 0, 12}, {whole, 0, 12}), ElementsAre(SharedRun{0, 0, 12}));
  EXPECT_THAT(shared_runs({whole.cut(0, 1, 2), 1, 6}, {whole, 0, 8}), ElementsAre(SharedRun{1, 5, 3}));
  EXPECT_THAT(shared_runs({whole.cut(1, 1, 2), 0, 6}, {whole.cut(0, 1, 2), 0, 8}),
              ElementsAre(SharedRun{2, 1, 2}, SharedRun{4, 5, 2}));
  EXPECT_THAT(shared_runs({whole.cut(0, 0, 1), 0, 4}, {whole.cut(0, 1, 1), 0, 4}), ElementsAre());
  EXPECT_THAT(shared_runs({whole.cut(0, 0, 0), 0, 0}, {whole, 0, 12}), ElementsAre());
}

// Values stored under one cut and read under another are those of the whole tensor, each read once.
TEST(BoxTest, AnyCutGoesIntoAnyOther) {
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    SCOPED_TRACE(seed);
    Dice dice(seed);
    const Shape shape = random_shape(dice);
    const std::vector<BoxRange> from = random_ranges(dice, shape), to = random_ranges(dice, shape);
    int64_t covered = 0;
    for (const BoxRange& reader : to) {
      std::map<int64_t, int64_t> read;  // index in the reader's box: place
      for (const BoxRange& writer : from)
        for (const SharedRun& run : shared_runs(writer, reader))
          for (int64_t i = 0; i < run.count; ++i) {
            ASSERT_GE(run.from + i, writer.first);
            ASSERT_LT(run.from + i, writer.first + writer.count);
            ASSERT_TRUE(read.emplace(run.to + i, writer.box.place(run.from + i)).second);
          }
      ASSERT_EQ(std::ssize(read), reader.count);
      for (const auto& [index, place] : read) {
        ASSERT_GE(index, reader.first);
        ASSERT_EQ(place, reader.box.place(index));
        ASSERT_EQ(reader.box.index(place), index);
      }
      covered += reader.count;
    }
    ASSERT_EQ(covered, shape.elements());
  }
}

}  // namespace
}  // namespace mixtune
