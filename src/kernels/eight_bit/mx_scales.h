// Where cuBLASLt reads the scales of an MX operand (CUBLASLT_MATMUL_MATRIX_SCALE_VEC32_UE8M0; cuBLAS's documentation,
// "1D Block Scaling Factors Layout"). Host and device.
#pragma once

#include <cstdint>

namespace mixtune {

constexpr int64_t kMxBlock = 32;  // neighbours along the summed dimension that share a scale

// The scales of an operand [rows, 32 * blocks], one byte each: in tiles of 128 rows x 4 blocks, the tiles row by row.
// Tiles at the edges are whole, too. Inside a tile rows that are 32 apart are neighbours, four scales each.
struct MxScales {
  static constexpr int64_t kTileRows = 128, kTileBlocks = 4, kTileScales = kTileRows * kTileBlocks;

  int64_t rows, blocks;

  constexpr int64_t tiles_down() const { return (rows + kTileRows - 1) / kTileRows; }
  constexpr int64_t tiles_across() const { return (blocks + kTileBlocks - 1) / kTileBlocks; }
  constexpr int64_t size() const { return tiles_down() * tiles_across() * kTileScales; }

  // Where the tile begins that has a row and a block; and from there, where their scale is.
  constexpr int64_t tile(int64_t row, int64_t block) const {
    return (row / kTileRows * tiles_across() + block / kTileBlocks) * kTileScales;
  }
  static constexpr int64_t in_tile(int64_t row, int64_t block) {
    return row % 32 * 16 + row % kTileRows / 32 * 4 + block % kTileBlocks;
  }
  constexpr int64_t at(int64_t row, int64_t block) const { return tile(row, block) + in_tile(row, block); }
};

}  // namespace mixtune
