// Quantise: a matrix in codes of 8 bits, as products of codes read it on Hopper.
//
// A product of codes, C [M, N] = A B^T, sums over rows of either operand. So both lie with the summed dimension last:
// where that is a matrix's rows (tokens, of a weight's gradient), its codes are those of its transpose. A's scales are
// of 1 x 128 codes, B's of 128 x 128.
#pragma once

#include "base/fp8.h"
#include "kernels/gemm/gemm.h"

namespace mixtune {

constexpr int64_t kScaleBlock = 128;  // codes that share a scale, along rows and columns
static_assert(kScaleBlock == kRowAlignment);
constexpr int64_t kMaxCodedGroups = 64;  // groups of rows that a GPU quantises at once

// An operand: E4M3 codes, one a byte, and the fp32 scales that they are to be multiplied with. Both may be empty.
struct Codes {
  Tensor codes, scales;

  explicit operator bool() const { return static_cast<bool>(codes); }
};

// Where a group of rows of a matrix has its scales: the operand of each group's product lies by itself, as cuBLASLt
// demands (CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F and _BLK128x128_32F).
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
};

// The group's place in a matrix with `columns`.
CodedGroup coded_group(const RowGroups& groups, int64_t index, int64_t columns);

// Quantises x [R, C] by fp8.h's scale_of and round_to, E4M3, into each of the four that is not empty. R and C are
// multiples of 128. A block of rows begins at its group's first one, and rows of a group from its count on are 0. What
// belongs to no group is not written. A NaN or an infinity has the code of a NaN and counts in no scale.
struct Quantise {
  Tensor x;  // on a GPU bf16
  RowGroups groups;
  ScaleRule scale = ScaleRule::kPowerOfTwo;  // or kFp32
  Codes rows = {};                           // codes [R, C], scales of 1 x 128
  Codes columns = {};                        // codes of the transpose [C, R], scales of 128 rows x 1
  Codes squares = {};                        // codes [R, C], scales of 128 x 128
  Codes turned = {};                         // codes of the transpose, scales of 128 x 128
};
void quantise(Ctx& ctx, const Quantise& args);

// The memory that each takes, of a matrix of this shape.
struct CodesShape {
  Shape codes;
  int64_t scales;

  size_t bytes() const;  // in an Arena
};
CodesShape rows_shape(const Shape& matrix);
CodesShape columns_shape(const Shape& matrix);
CodesShape squares_shape(const Shape& matrix);
CodesShape turned_shape(const Shape& matrix, int64_t groups);

// Each pushes it.
Codes push_rows(Ctx& ctx, const Shape& matrix);
Codes push_columns(Ctx& ctx, const Shape& matrix);
Codes push_squares(Ctx& ctx, const Shape& matrix);
Codes push_turned(Ctx& ctx, const Shape& matrix, int64_t groups);

}  // namespace mixtune
