#include "kernels/eight_bit/quantise.h"

#include <array>
#include <cmath>
#include <limits>
#include <set>

#include "kernels/eight_bit/coded_gemm.h"
#include "kernels/eight_bit/quantise_cpu.h"
#include "kernels/eight_bit/round_operand.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

// Every code but the NaNs is the code of its own value.
TEST(Codes, AreThoseOfTheirValues) {
  std::set<float> values;
  for (int bits = 0; bits < 256; ++bits) {
    const float value = to_float(E4M3{static_cast<uint8_t>(bits)});
    if ((bits & 0x7F) == 0x7F) {
      EXPECT_TRUE(std::isnan(value)) << bits;
      continue;
    }
    values.insert(value);
    EXPECT_EQ(round_to(kE4M3, value), value) << bits;
    EXPECT_EQ(cpu::code_of(value).bits, bits);
    EXPECT_EQ(cpu::code_of(static_cast<double>(value)).bits, bits);
  }
  EXPECT_EQ(values.size(), 2 * 127 - 1);
  EXPECT_EQ(*values.rbegin(), 448);
  EXPECT_EQ(*values.upper_bound(0), 0x1p-9F);
  EXPECT_EQ(cpu::code_of(std::numeric_limits<float>::quiet_NaN()).bits, 0x7F);
}

// Three groups: one with a gap, one empty, one of two blocks; and rows at the end that belong to none.
constexpr std::array<int32_t, 3> kCodedBegin = {0, 128, 128}, kCodedCount = {100, 0, 256};
constexpr RowGroups kCodedGroups = {kCodedBegin.data(), kCodedCount.data(), 3};
constexpr int64_t kCodedRows = 512, kCodedColumns = 640;  // five blocks: padded to eight

class QuantiseTest : public testing::TestWithParam<ScaleRule> {
 protected:
  // Values of very different sizes, a NaN and an infinity among them, and blocks of zeros.
  Buffer<float> values() {
    Buffer<float> x = Buffer<float>::random({kCodedRows, kCodedColumns}, "x");
    for (int64_t i = 0; i < x.size(); ++i)
      x[i] = std::ldexp(x[i], static_cast<int>(i % 37 - 20) - static_cast<int>(i / kCodedColumns % 5));
    for (int64_t r = 130; r < 260; ++r)
      for (int64_t c = 256; c < 384; ++c) x[r * kCodedColumns + c] = 0;
    x[3 * kCodedColumns + 5] = std::numeric_limits<float>::quiet_NaN();
    x[200 * kCodedColumns + 130] = std::numeric_limits<float>::infinity();
    return x;
  }

  // What round_operand leaves of the rows of each group, with the same blocks.
  Buffer<float> rounded(Buffer<float>& x, ScaleBlocks blocks) {
    Buffer<float> y({kCodedRows, kCodedColumns});
    for (int64_t i = 0; i < y.size(); ++i) y[i] = 0;
    for (int64_t e = 0; e < kCodedGroups.groups; ++e) {
      const int64_t rows = align_rows(kCodedCount[e]);
      round_operand(ctx_, {.x = x.tensor().slice(kCodedBegin[e], rows),
                           .y = y.tensor().slice(kCodedBegin[e], rows),
                           .bits = {.format = kE4M3, .blocks = blocks, .scale = GetParam()},
                           .live = kCodedCount[e]});
    }
    return y;
  }

  // Compares code_at(r, c) * scale_at(group, r, c) with it.
  template <class CodeAt, class ScaleAt>
  void expect_rounded(Buffer<float>& x, ScaleBlocks blocks, const CodeAt& code_at, const ScaleAt& scale_at) {
    const Buffer<float> expected = rounded(x, blocks);
    for (int64_t e = 0; e < kCodedGroups.groups; ++e) {
      const CodedGroup group = coded_group(kCodedGroups, e, kCodedColumns);
      for (int64_t r = group.begin; r < group.begin + group.rows; ++r)
        for (int64_t c = 0; c < kCodedColumns; ++c) {
          const float value = to_float(code_at(r, c)) * scale_at(group, r, c), want = expected[r * kCodedColumns + c];
          ASSERT_TRUE(value == want || (std::isnan(value) && std::isnan(want))) << r << ", " << c;
          ASSERT_EQ(std::signbit(value), std::signbit(want)) << r << ", " << c;
        }
    }
  }

  TestCtx ctx_;
};

TEST_P(QuantiseTest, GivesWhatRoundOperandDoes) {
  Buffer<float> x = values();
  const auto push = [&](CodesForm form) {
    return push_codes(ctx_, form, {.matrix = x.tensor().shape, .groups = kCodedGroups.groups, .scale = GetParam()});
  };
  const Codes rows = push(CodesForm::kRows), columns = push(CodesForm::kColumns), squares = push(CodesForm::kSquares),
              turned = push(CodesForm::kTurned);
  quantise(ctx_, {.x = x,
                  .groups = kCodedGroups,
                  .scale = GetParam(),
                  .rows = rows,
                  .columns = columns,
                  .squares = squares,
                  .turned = turned});
  const auto straight = [](const Codes& codes) {
    return [at = codes.codes.as<E4M3>()](int64_t r, int64_t c) {
      return at[r * kCodedColumns + c];
    };
  };
  const auto transposed = [](const Codes& codes) {
    return [at = codes.codes.as<E4M3>()](int64_t r, int64_t c) {
      return at[c * kCodedRows + r];
    };
  };
  if (GetParam() == ScaleRule::kMx) {
    for (const Codes& codes : {rows, squares})
      expect_rounded(x, {1, 32}, straight(codes), [&](const CodedGroup& g, int64_t r, int64_t c) {
        return to_float(codes.scales.as<E8M0>()[g.begin * 20 + MxScales{g.rows, 20}.at(r - g.begin, c / 32)]);
      });
    for (const Codes& codes : {columns, turned})
      expect_rounded(x, {32, 1}, transposed(codes), [&](const CodedGroup& g, int64_t r, int64_t c) {
        return to_float(
            codes.scales.as<E8M0>()[g.begin * 20 + MxScales{kCodedColumns, g.rows / 32}.at(c, (r - g.begin) / 32)]);
      });
    return;
  }
  expect_rounded(x, {1, 128}, straight(rows), [&](const CodedGroup& g, int64_t r, int64_t c) {
    return rows.scales.as<float>()[g.rows_begin() + g.of_row(r, c / 128)];
  });
  expect_rounded(x, {128, 1}, transposed(columns), [&](const CodedGroup& g, int64_t r, int64_t c) {
    return columns.scales.as<float>()[g.columns_begin() + g.of_column(r, c)];
  });
  expect_rounded(x, {128, 128}, straight(squares), [&](const CodedGroup& g, int64_t r, int64_t c) {
    return squares.scales.as<float>()[g.squares_begin() + g.of_square(r, c / 128)];
  });
  expect_rounded(x, {128, 128}, transposed(turned), [&](const CodedGroup& g, int64_t r, int64_t c) {
    return turned.scales.as<float>()[g.turned_begin() + g.of_turned(r, c / 128)];
  });
}

// A block's scale at the ends of what E8M0 has, and of values on both sides of where it doubles: the byte that is
// written is the least with which nothing saturates, and codes are the nearest.
TEST(MxCodes, OfExtremesAreTheNearest) {
  TestCtx ctx;
  Buffer<float> x({128, 128});
  const float largest = std::numeric_limits<float>::max();
  const std::array<float, 12> most = {0,
                                      448,
                                      std::nextafter(448.0f, 449.0f),
                                      0x1p-149f,
                                      0x1p-126f,
                                      0x1.cp-119f,
                                      0x1.c00002p-119f,
                                      -1.75f,
                                      0x1.cp-118f,
                                      largest,
                                      0x1p-127f,
                                      -std::nextafter(1.75f, 2.0f)};
  for (int64_t r = 0; r < 128; ++r)
    for (int64_t c = 0; c < 128; ++c) {
      const float amax = most[(r + 5 * (c / 32)) % most.size()];
      x[r * 128 + c] = c % 32 == r % 32 ? amax : std::ldexp(amax, -static_cast<int>(c % 32)) * (c % 2 == 0 ? 1 : -0.7f);
    }
  const int32_t begin = 0, count = 128;
  const Codes codes = push_codes(ctx, CodesForm::kRows, {.matrix = {128, 128}, .scale = ScaleRule::kMx});
  quantise(ctx, {.x = x, .groups = {&begin, &count, 1}, .scale = ScaleRule::kMx, .rows = codes});
  for (int64_t r = 0; r < 128; ++r)
    for (int64_t c = 0; c < 128; ++c) {
      const int byte = codes.scales.as<E8M0>()[r % 32 * 16 + r / 32 * 4 + c / 32].bits;
      const double amax = std::abs(most[(r + 5 * (c / 32)) % most.size()]), scale = std::ldexp(1.0, byte - 127);
      if (amax == 0) {
        ASSERT_EQ(byte, 127);
      } else {
        ASSERT_LE(amax, 448 * scale);
        ASSERT_TRUE(byte == 0 || amax > 448 * scale / 2) << r << ", " << c;
      }
      const E4M3 code = codes.codes.as<E4M3>()[r * 128 + c];
      const double value = x[r * 128 + c], error = std::abs(to_float(code) * scale - value);
      for (const int step : {-1, 1}) {
        const E4M3 next = {static_cast<uint8_t>(code.bits + step)};
        if ((code.bits & 0x7F) + step < 0 || (next.bits & 0x7F) == 0x7F) continue;
        ASSERT_LE(error, std::abs(to_float(next) * scale - value)) << r << ", " << c;
      }
    }
}

// The groups' scales lie apart, where cuBLASLt's layouts allow it: each begins at 16 bytes and ends before the next.
TEST(CodedGroups, HaveScalesOfTheirOwn) {
  for (const int64_t columns : {128, 640, 4096}) {
    int64_t rows_end = 0, columns_end = 0, squares_end = 0, turned_end = 0, mx_end = 0;
    for (int64_t e = 0; e < kCodedGroups.groups; ++e) {
      const CodedGroup g = coded_group(kCodedGroups, e, columns);
      if (g.rows == 0) continue;
      const int64_t last = g.begin + g.rows - 1, blocks = columns / kScaleBlock;
      EXPECT_GE(g.rows_begin(), rows_end);
      EXPECT_GE(g.columns_begin(), columns_end);
      EXPECT_GE(g.squares_begin(), squares_end);
      EXPECT_GE(g.turned_begin(), turned_end);
      for (const int64_t begin : {g.rows_begin(), g.columns_begin(), g.squares_begin(), g.turned_begin()})
        EXPECT_EQ(begin % 4, 0);
      EXPECT_EQ(g.mx_begin() % 16, 0);
      EXPECT_GE(g.mx_begin(), mx_end);
      EXPECT_EQ(g.mx_of_rows().size(), g.mx_of_columns().size());
      mx_end = g.mx_begin() + g.mx_of_rows().size();
      rows_end = g.rows_begin() + g.of_row(last, blocks - 1) + 1;
      columns_end = g.columns_begin() + g.of_column(last, columns - 1) + 1;
      squares_end = g.squares_begin() + g.of_square(last, blocks - 1) + 1;
      turned_end = g.turned_begin() + g.of_turned(last, blocks - 1) + 1;
    }
    const CodedGroup end = {.index = kCodedGroups.groups, .begin = kCodedRows, .columns = columns};
    EXPECT_LE(turned_end, end.turned_begin());
    EXPECT_LE(mx_end, end.mx_begin());
  }
}

INSTANTIATE_TEST_SUITE_P(Scales, QuantiseTest,
                         testing::Values(ScaleRule::kPowerOfTwo, ScaleRule::kFp32, ScaleRule::kMx));

}  // namespace
}  // namespace mixtune
