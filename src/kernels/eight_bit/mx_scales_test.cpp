#include "kernels/eight_bit/mx_scales.h"

#include <gtest/gtest.h>

#include <vector>

namespace mixtune {
namespace {

// By cuBLAS's documentation: a tile's offset is (outer % 32) * 16 + (outer / 32) * 4 + inner, and that of a block of
// tiles (sf_inner + sf_outer * sf_inner_dim) * 128.
TEST(MxScales, AreWhereTheDocumentationHasThem) {
  constexpr MxScales one = {.rows = 128, .blocks = 4};
  static_assert(one.size() == 512);
  static_assert(one.at(0, 0) == 0 && one.at(0, 1) == 1 && one.at(0, 3) == 3);
  static_assert(one.at(32, 0) == 4 && one.at(64, 0) == 8 && one.at(96, 0) == 12 && one.at(96, 3) == 15);
  static_assert(one.at(1, 0) == 16 && one.at(33, 2) == 22 && one.at(31, 0) == 496 && one.at(127, 3) == 511);
  constexpr MxScales many = {.rows = 384, .blocks = 12};
  static_assert(many.at(0, 4) == (4 + 0 * 12) * 128);
  static_assert(many.at(128, 0) == 3 * 512 && many.at(128, 4) == 4 * 512);
  static_assert(many.at(256, 8) == 8 * 512 && many.at(256 + 33, 9) == 8 * 512 + 21);
  EXPECT_EQ(many.size(), 384 * 12);
}

// The order of the bytes by walking through them: tiles row by row, in a tile 32 rows, of each those 32 apart, of each
// four blocks. Padding has its bytes.
TEST(MxScales, FillTheirTilesInOrder) {
  for (const auto& [rows, blocks] : {std::pair<int64_t, int64_t>{128, 4}, {1, 1}, {129, 5}, {640, 20}, {300, 33}}) {
    const MxScales scales = {.rows = rows, .blocks = blocks};
    int64_t byte = 0, seen = 0;
    for (int64_t top = 0; top < rows; top += 128)
      for (int64_t left = 0; left < blocks; left += 4)
        for (int64_t row = top; row < top + 32; ++row)
          for (int64_t apart = 0; apart < 128; apart += 32)
            for (int64_t block = left; block < left + 4; ++block, ++byte) {
              ASSERT_EQ(scales.at(row + apart, block), byte) << row + apart << ", " << block;
              seen += row + apart < rows && block < blocks;
            }
    EXPECT_EQ(byte, scales.size());
    EXPECT_EQ(seen, rows * blocks);
  }
}

// No two scales, padding among them, share a byte, and none is left over.
TEST(MxScales, HaveAByteEach) {
  for (const auto& [rows, blocks] : {std::pair<int64_t, int64_t>{256, 8}, {130, 3}, {7, 9}}) {
    const MxScales scales = {.rows = rows, .blocks = blocks};
    std::vector<int> used(scales.size());
    for (int64_t row = 0; row < scales.tiles_down() * MxScales::kTileRows; ++row)
      for (int64_t block = 0; block < scales.tiles_across() * MxScales::kTileBlocks; ++block) {
        const int64_t at = scales.at(row, block);
        ASSERT_LT(at, scales.size());
        // The documentation's way back.
        const int64_t offset = at % 512;
        ASSERT_EQ(offset % 16 / 4 * 32 + offset / 16, row % 128);
        ASSERT_EQ(offset % 4, block % 4);
        ++used[at];
      }
    for (const int times : used) ASSERT_EQ(times, 1);
  }
}

}  // namespace
}  // namespace mixtune
