// Quantise: a matrix in codes of 8 bits, as products of codes read it on Hopper and on Blackwell.
//
// A product of codes, C [M, N] = A B^T, sums over rows of either operand. So both lie with the summed dimension last:
// where that is a matrix's rows (tokens, of a weight's gradient), its codes are those of its transpose. How many share
// a scale, CodesKind says.
#pragma once

#include "base/fp8.h"
#include "kernels/eight_bit/mx_scales.h"
#include "kernels/eight_bit/round_operand.h"
#include "kernels/gemm/gemm.h"

namespace mixtune {

constexpr int64_t kScaleBlock = 128;  // of Hopper's scales, and a side of MX's tiles of scales: sizes are multiples
static_assert(kScaleBlock == kRowAlignment && kScaleBlock == MxScales::kTileRows &&
              kScaleBlock == MxScales::kTileBlocks * kMxBlock);
constexpr int64_t kMaxCodedGroups = 64;  // groups of rows that a GPU quantises at once

// Which codes of A and of B share a scale, along rows and the summed dimension, and of which type scales are.
struct CodesKind {
  DType scales;
  ScaleBlocks left, right;
};
constexpr CodesKind kBlockCodes = {.scales = DType::kF32,
                                   .left = {1, kScaleBlock},
                                   .right = {kScaleBlock, kScaleBlock}},
                    kMxCodes = {.scales = DType::kF8E8M0, .left = {1, kMxBlock}, .right = {1, kMxBlock}};
// The kind whose scales are taken by this rule.
constexpr CodesKind codes_kind(ScaleRule rule) {
  return rule == ScaleRule::kMx ? kMxCodes : kBlockCodes;
}

// What a matrix is made into: A or B of a product, the codes of the matrix or of its transpose. Of kBlockCodes B's
// scales are of squares.
enum class CodesForm { kRows, kColumns, kSquares, kTurned };
constexpr bool is_transposed(CodesForm form) {
  return form == CodesForm::kColumns || form == CodesForm::kTurned;
}
// The elements of the matrix, rows x columns, that share a scale.
constexpr ScaleBlocks blocks_of(const CodesKind& kind, CodesForm form) {
  const bool left = form == CodesForm::kRows || form == CodesForm::kColumns;
  const ScaleBlocks blocks = left ? kind.left : kind.right;
  return is_transposed(form) ? ScaleBlocks{blocks.columns, blocks.rows} : blocks;
}

// An operand: E4M3 codes, one a byte, and the scales that they are to be multiplied with. Both may be empty.
struct Codes {
  Tensor codes, scales;

  explicit operator bool() const { return static_cast<bool>(codes); }
};

// Where a group of rows of a matrix has its scales: the operand of each group's product lies by itself, as cuBLASLt
// demands (CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F and _BLK128x128_32F; _VEC32_UE8M0).
struct CodedGroup {
  int64_t index = 0, begin = 0, rows = 0;  // rows: whole multiples of kScaleBlock
  int64_t columns = 0;                     // of the matrix, a multiple of kScaleBlock

  static constexpr int64_t padded(int64_t blocks) { return (blocks + 3) / 4 * 4; }
  constexpr int64_t column_blocks() const { return columns / kScaleBlock; }

  // Where the group's scales begin, in elements; and of what `row` of the matrix and `column` belong to, from there.
  // Rows, 1 x 128: [C / 128, rows].
  constexpr int64_t rows_begin() const { return begin * column_blocks(); }
  constexpr int64_t of_row(int64_t row, int64_t block) const { return block * rows + row - begin; }
  // Columns, 128 x 1: [rows / 128, C].
  constexpr int64_t columns_begin() const { return begin / kScaleBlock * columns; }
  constexpr int64_t of_column(int64_t row, int64_t column) const {
    return (row - begin) / kScaleBlock * columns + column;
  }
  // Squares, 128 x 128: [rows / 128, C / 128 padded to a multiple of 4]; of the transpose, the other way round.
  constexpr int64_t squares_begin() const { return begin / kScaleBlock * padded(column_blocks()); }
  constexpr int64_t of_square(int64_t row, int64_t block) const {
    return (row - begin) / kScaleBlock * padded(column_blocks()) + block;
  }
  constexpr int64_t turned_begin() const { return (padded(begin / kScaleBlock) + 4 * index) * column_blocks(); }
  constexpr int64_t of_turned(int64_t row, int64_t block) const {
    return block * padded(rows / kScaleBlock) + (row - begin) / kScaleBlock;
  }
  // MX, 1 x 32 of the matrix, or 32 x 1: 1 x 32 of its transpose. Both begin at the same place.
  constexpr int64_t mx_begin() const { return begin * (columns / kMxBlock); }
  constexpr MxScales mx_of_rows() const { return {.rows = rows, .blocks = columns / kMxBlock}; }
  constexpr MxScales mx_of_columns() const { return {.rows = columns, .blocks = rows / kMxBlock}; }
};

// The group's place in a matrix with `columns`.
CodedGroup coded_group(const RowGroups& groups, int64_t index, int64_t columns);

// The group's first scale in an operand whose scales are of this type; and that of the matrix's (row, column), counted
// from the operand's first.
int64_t scales_begin(DType scales, CodesForm form, const CodedGroup& group);
int64_t scale_index(DType scales, CodesForm form, const CodedGroup& group, int64_t row, int64_t column);

// Quantises x [R, C] by fp8.h's scale_of and round_to, E4M3, into each of the four that is not empty. R and C are
// multiples of 128. A block of rows begins at its group's first one, and rows of a group from its count on are 0. What
// belongs to no group is not written. A NaN or an infinity has the code of a NaN and counts in no scale.
struct Quantise {
  Tensor x;  // on a GPU bf16
  RowGroups groups;
  ScaleRule scale = ScaleRule::kPowerOfTwo;  // kMx: of kMxCodes
  Codes rows = {};                           // codes [R, C], scales of 1 x 128, or 1 x 32
  Codes columns = {};                        // codes of the transpose [C, R], scales of 128 rows x 1, or 32 x 1
  Codes squares = {};                        // codes [R, C], scales of 128 x 128, or 1 x 32
  Codes turned = {};                         // codes of the transpose, scales of 128 x 128, or 32 x 1
};
void quantise(Ctx& ctx, const Quantise& args);

// The memory that one of them takes.
struct CodesShape {
  Shape codes;
  int64_t scales;
  DType scale;  // a scale's type

  size_t bytes() const;  // in an Arena
};
// Of a matrix with so many groups of rows.
struct CodesOfMatrix {
  Shape matrix;
  int64_t groups = 1;
  ScaleRule scale = ScaleRule::kPowerOfTwo;
};
CodesShape codes_shape(CodesForm form, const CodesOfMatrix& of);
Codes push_codes(Ctx& ctx, CodesForm form, const CodesOfMatrix& of);

}  // namespace mixtune
