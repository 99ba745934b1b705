#include "base/random_normals.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

#include "base/near_normal.h"
#include "base/random.h"

namespace mixtune {
namespace {

std::vector<float> expected_normals(uint64_t key, uint64_t first, double deviation, size_t n) {
  std::vector<float> values;
  for (size_t i = 0; i < n; ++i) values.push_back(static_cast<float>(deviation * random_normal(key, first + i)));
  return values;
}

void expect_same_bits(uint64_t key, uint64_t first, double deviation, size_t n) {
  std::vector<float> values(n);
  random_normals(key, first, deviation, values);
  const std::vector<float> expected = expected_normals(key, first, deviation, n);
  EXPECT_TRUE(n == 0 || std::memcmp(values.data(), expected.data(), n * sizeof(float)) == 0) << deviation;
}

TEST(RandomNormals, HaveTheBitsOfOneByOne) {
  for (const size_t n : {0, 1, 7, 255, 256, 257, 1000}) expect_same_bits(random_key(3, "sizes"), 5 + n, 0.02, n);
  expect_same_bits(random_key(1, "many"), (uint64_t{1} << 40) + 3, 0.02, 2'000'000);
  // None, all that is denormal or 0 in fp32, and what is infinite.
  for (const double deviation : {0.0, -0.0, 1e-40, 1e-46, 1000.0, 1e38, 1e300, -0.3})
    expect_same_bits(random_key(2, "deviations"), 0, deviation, 5000);
}

// As far below what random_normals allows for as near_normal.h says.
TEST(RandomNormals, AreNearBeforeTheyAreExact) {
  const uint64_t key = random_key(1, "near");
  double worst = 0;
  for (uint64_t i = 0; i < 1'000'000; ++i) {
    const auto [value, radius] = near_normal(random_bits(key, 2 * i), random_bits(key, 2 * i + 1));
    worst = std::max(worst, std::abs(value - random_normal(key, i)) / radius);
  }
  EXPECT_LT(worst, kNearNormalError / 32);
}

// Every magnitude of z = 1 - u, down to the least, and those next to 1 and to where the exponent changes.
TEST(RandomNormals, LogarithmAndCosineOverTheirWholeRanges) {
  const auto expect_near_log = [](double z) {
    EXPECT_LE(std::abs(near_log(z) - std::log(z)), 0x1p-49 * std::abs(std::log(z))) << z;
  };
  for (double base = 1; base >= 0x1p-53; base /= 2)
    for (const double factor : {1.0, 0.75, std::sqrt(0.5), std::sqrt(0.5) + 0x1p-50, std::sqrt(0.5) - 0x1p-50, 0.51})
      expect_near_log(std::max(base * factor, 0x1p-53));
  for (int k = 1; k < 50; ++k) expect_near_log(1 - std::ldexp(1.0, -k));
  for (int i = 0; i < 4096; ++i)
    for (const double v : {i / 4096.0, i / 4096.0 + 0x1p-53})
      EXPECT_LE(std::abs(near_cos_of_turns(v) - std::cos(2 * std::numbers::pi * v)), 0x1p-49) << v;
  EXPECT_EQ(near_cos_of_turns(0.25), 0);
}

}  // namespace
}  // namespace mixtune
