#include "checkpoint/convert.h"

#include <limits>

#include "checkpoint/test_model.h"

namespace mixtune {
namespace {

TEST(Convert, F16RoundTripsEveryPattern) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const F16 x{static_cast<uint16_t>(bits)};
    if (!std::isnan(to_float(x))) {
      EXPECT_EQ(to_f16(to_float(x)).bits, x.bits);
    } else {
      EXPECT_TRUE(std::isnan(to_float(to_f16(to_float(x)))));
    }
  }
}

// Between each two neighbours: the nearer one, the even one at the middle.
TEST(Convert, F16RoundsToNearestEven) {
  for (uint16_t bits = 0; bits < 0x7BFF; ++bits) {
    const float low = to_float(F16{bits}), high = to_float(F16{static_cast<uint16_t>(bits + 1)});
    const float middle = low + (high - low) / 2;
    EXPECT_EQ(to_f16(middle).bits, bits % 2 == 0 ? bits : bits + 1);
    EXPECT_EQ(to_f16(std::nextafter(middle, low)).bits, bits);
    EXPECT_EQ(to_f16(std::nextafter(-middle, -high)).bits, (bits + 1) | 0x8000);
  }
  EXPECT_EQ(to_f16(65519.996f).bits, 0x7BFF);
  EXPECT_EQ(to_f16(65520.0f).bits, 0x7C00);
  EXPECT_EQ(to_f16(0x1p-25f).bits, 0);
  EXPECT_EQ(to_f16(std::nextafter(0x1p-25f, 1.0f)).bits, 1);
}

TEST(Convert, DecodesUnalignedBytes) {
  for (const int64_t n : {5, 100'000}) {
    std::vector<std::byte> bytes(1 + n * 4);
    std::vector<float> values(n), narrow_values(n);
    for (int64_t i = 0; i < n; ++i) values[i] = static_cast<float>(i % 1024) / 8;  // some of 10 bits: bf16 rounds them
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      const std::span<std::byte> part(bytes.data() + 1, n * dtype_size(dtype));
      for (float& value : values) value = dtype == DType::kBF16 ? to_float(to_bf16(value)) : value;
      ASSERT_TRUE(narrow(values, dtype, part));
      std::vector<double> wide(n);
      std::vector<BF16> held(n);
      ASSERT_TRUE(decode(part, dtype, host_tensor(narrow_values.data(), {n})));
      ASSERT_TRUE(decode(part, dtype, host_tensor(wide.data(), {n})));
      ASSERT_TRUE(decode(part, dtype, host_tensor(held.data(), {n})));
      EXPECT_EQ(values, narrow_values);
      EXPECT_TRUE(std::ranges::equal(values, held, [](float x, BF16 y) { return to_bf16(x).bits == y.bits; }));
      EXPECT_TRUE(std::ranges::equal(values, wide));
    }
  }
}

TEST(Convert, SeesWhatIsNotFinite) {
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    for (const int64_t n : {3, 100'000}) {
      std::vector<float> values(n, 1), to(n);
      values[n / 2] = bad;
      std::vector<std::byte> bytes(n * 2);
      EXPECT_TRUE(narrow(values, DType::kBF16, bytes));  // kept as it was
      EXPECT_FALSE(decode(std::as_bytes(std::span(values)), DType::kF32, host_tensor(to.data(), {n})));
      EXPECT_FALSE(decode(bytes, DType::kBF16, host_tensor(to.data(), {n})));
    }
}

TEST(Convert, SeesWhatBf16CannotHold) {
  const float most = std::numeric_limits<float>::max();
  BF16 held{};
  EXPECT_FALSE(decode(std::as_bytes(std::span(&most, 1)), DType::kF32, host_tensor(&held, {1})));
}

TEST(Convert, SeesWhatF16CannotHold) {
  const std::vector<float> values = {1, 70000};
  std::vector<std::byte> bytes(4);
  EXPECT_FALSE(narrow(values, DType::kF16, bytes));
  EXPECT_TRUE(narrow(values, DType::kBF16, bytes));
}

}  // namespace
}  // namespace mixtune
