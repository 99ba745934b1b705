#include "kernels/four_bit/nf4.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/fp16.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

// The memory of a quantised tensor.
struct Parts {
  Parts(int64_t elements, bool nested, int64_t block = kNf4Block)
      : codes((elements + 1) / 2, 0xAB),
        absmax((elements + block - 1) / block * (nested ? 1 : sizeof(float)), 0xAB),
        nested_absmax((absmax.size() + kNestedBlock - 1) / kNestedBlock),
        map(dynamic_map().begin(), dynamic_map().end()),
        tensor{.elements = elements, .block = block, .codes = bytes(codes), .absmax = bytes(absmax)} {
    if (nested) {
      tensor.nested_absmax = host_tensor(nested_absmax.data(), {std::ssize(nested_absmax)});
      tensor.nested_map = host_tensor(map.data(), {256});
      tensor.offset = host_tensor(&offset, {1});
    } else {
      tensor.absmax = {absmax.data(), {tensor.blocks()}, DType::kF32, {}};
    }
  }
  static Tensor bytes(std::vector<uint8_t>& of) { return {of.data(), {std::ssize(of)}, DType::kU8, {}}; }
  int code(int64_t i) const { return i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15; }

  std::vector<uint8_t> codes, absmax;
  std::vector<float> nested_absmax, map;
  float offset = -1;
  Nf4Tensor tensor;
};

class Nf4 : public testing::Test {
 protected:
  void quantise(Buffer<float>& x, Parts& parts) { nf4_quantise(ctx_, {.x = x, .to = parts.tensor}); }
  Buffer<float> values(const Nf4Tensor& from, DType through = DType::kF32) {
    Buffer<float> y({from.elements});
    const Nf4Dequantise args = {.from = from, .to = y, .through = through};
    nf4_dequantise(ctx_, {&args, 1});
    return y;
  }

  TestCtx ctx_;
};

// |x - y| / |x|, both as vectors.
double relative_error(const Buffer<float>& x, const Buffer<float>& y) {
  double squares = 0, squares_of_x = 0;
  for (int64_t i = 0; i < x.size(); ++i) {
    squares += std::pow(static_cast<double>(x[i]) - y[i], 2);
    squares_of_x += std::pow(static_cast<double>(x[i]), 2);
  }
  return std::sqrt(squares / squares_of_x);
}

TEST_F(Nf4, LosesNinePercentOfANormalWeight) {
  Buffer<float> x = Buffer<float>::random({1 << 19}, "weight", 0.02);
  Parts plain(x.size(), false), nested(x.size(), true);
  quantise(x, plain);
  quantise(x, nested);
  EXPECT_NEAR(relative_error(x, values(plain.tensor)), 0.092, 0.001);
  EXPECT_NEAR(relative_error(x, values(nested.tensor)), 0.092, 0.001);
  EXPECT_EQ(plain.codes, nested.codes);
}

// Each value has its own code, whatever the block's absmax, and each code the nearest of the 16.
TEST_F(Nf4, CodesAreThoseOfTheNearestValues) {
  Buffer<float> x = Buffer<float>::random({40 * kNf4Block}, "x");
  for (int64_t i = 0; i < 16; ++i) x[i] = 3 * kNf4Values[i];
  for (int64_t i = 16; i < kNf4Block; ++i) x[i] = 0;
  Parts parts(x.size(), false);
  quantise(x, parts);
  const auto* absmax = parts.tensor.absmax.as<float>();
  for (int i = 0; i < 16; ++i) EXPECT_EQ(parts.code(i), i);
  EXPECT_EQ(absmax[0], 3);
  for (int64_t i = 0; i < x.size(); ++i) {
    const double quotient = static_cast<double>(x[i]) / absmax[i / kNf4Block];
    const auto nearest = std::ranges::min_element(kNf4Values, {}, [&](float v) { return std::abs(quotient - v); });
    EXPECT_EQ(parts.code(i), nearest - kNf4Values.begin()) << i;
  }
}

TEST_F(Nf4, ZerosStayZerosInABlockOfThemToo) {
  Buffer<float> x = Buffer<float>::random({300 * kNf4Block + 7}, "x");
  for (int64_t i = 0; i < x.size(); ++i)
    if (i % 11 == 0 || (i >= 64 && i < 256) || i >= 300 * kNf4Block) x[i] = 0;
  for (const bool is_nested : {false, true}) {
    Parts parts(x.size(), is_nested);
    quantise(x, parts);
    const Buffer<float> y = values(parts.tensor);
    for (int64_t i = 0; i < x.size(); ++i)
      if (x[i] == 0) {
        EXPECT_EQ(parts.code(i), 7) << i;
        EXPECT_EQ(y[i], 0) << i;
      }
  }
}

// An absmax of 8 bits is the nearest that its block of 256 has.
TEST_F(Nf4, AbsmaxAreTheNearestOfTheDynamicMap) {
  Buffer<float> x = Buffer<float>::random({600 * kNf4Block}, "x");
  Parts plain(x.size(), false), nested(x.size(), true);
  quantise(x, plain);
  quantise(x, nested);
  const auto* exact = plain.tensor.absmax.as<float>();
  double sum = 0;
  for (int64_t b = 0; b < 600; ++b) sum += exact[b];
  EXPECT_EQ(nested.offset, static_cast<float>(sum / 600));
  for (int64_t b = 0; b < 600; ++b) {
    const auto coded = [&](int code) {
      return static_cast<double>(nested.map[code]) * nested.nested_absmax[b / 256];
    };
    const double wanted = static_cast<double>(exact[b]) - nested.offset;
    double least = 1;
    for (int code = 0; code < 256; ++code) least = std::min(least, std::abs(coded(code) - wanted));
    EXPECT_LE(std::abs(coded(nested.absmax[b]) - wanted), least + 1e-6) << b;
  }
}

// A stretch of a tensor has the values that the whole has there.
TEST_F(Nf4, AStretchIsAPartOfTheWhole) {
  Buffer<float> x = Buffer<float>::random({700 * kNf4Block + 13}, "x");
  Parts parts(x.size(), true);
  quantise(x, parts);
  const Buffer<float> whole = values(parts.tensor, DType::kBF16);
  for (const int64_t block : {0, 1, 255, 256, 257, 699, 700}) {
    Nf4Tensor some = parts.tensor;
    some.first = block * kNf4Block;
    some.elements = std::min<int64_t>(x.size() - some.first, 3 * kNf4Block - 1);
    some.codes = some.codes.slice(some.first / 2, (some.elements + 1) / 2);
    some.absmax = some.absmax.slice(block, some.blocks());
    const Buffer<float> stretch = values(some, DType::kBF16);
    for (int64_t i = 0; i < stretch.size(); ++i) ASSERT_EQ(stretch[i], whole[some.first + i]) << block << " " << i;
  }
}

TEST_F(Nf4, RoundsOnceThroughTheTensorsType) {
  Buffer<float> x = Buffer<float>::random({100 * kNf4Block}, "x");
  Parts parts(x.size(), true);
  quantise(x, parts);
  const Buffer<float> exact = values(parts.tensor), bf16 = values(parts.tensor, DType::kBF16),
                      fp16 = values(parts.tensor, DType::kF16);
  for (int64_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(bf16[i], to_float(to_bf16(exact[i])));
    EXPECT_EQ(fp16[i], to_float(to_f16(exact[i])));
  }
}

TEST_F(Nf4, TheOracleHasTheSameBits) {
  Buffer<float> x = Buffer<float>::random({130 * kNf4Block + 33}, "x");
  Buffer<double> wide({x.size()}), y({x.size()});
  for (int64_t i = 0; i < x.size(); ++i) wide[i] = x[i];
  Parts narrow_parts(x.size(), true), wide_parts(x.size(), true);
  quantise(x, narrow_parts);
  nf4_quantise(ctx_, {.x = wide, .to = wide_parts.tensor});
  EXPECT_EQ(narrow_parts.codes, wide_parts.codes);
  EXPECT_EQ(narrow_parts.absmax, wide_parts.absmax);
  const Nf4Dequantise args = {.from = wide_parts.tensor, .to = y, .through = DType::kF16};
  nf4_dequantise(ctx_, {&args, 1});
  const Buffer<float> narrow = values(narrow_parts.tensor, DType::kF16);
  for (int64_t i = 0; i < x.size(); ++i) EXPECT_EQ(y[i], narrow[i]);
}

TEST(Nf4Bytes, AreThoseOfTheParts) {
  const int64_t n = 14336 * 4096;
  EXPECT_EQ(nf4_bytes(n, false), n / 2 + 4 * (n / 64));
  EXPECT_EQ(nf4_bytes(n, true), n / 2 + n / 64 + 4 * (n / 64 / 256) + 4);
  EXPECT_NEAR(8.0 * static_cast<double>(nf4_bytes(n, true)) / static_cast<double>(n), 4.127, 0.0005);
  EXPECT_EQ(nf4_bytes(65, true), 33 + 2 + 4 + 4);
}

}  // namespace
}  // namespace mixtune
