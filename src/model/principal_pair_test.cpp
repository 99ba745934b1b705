#include "model/principal_pair.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mixtune {
namespace {

// Element i of the k-th of n orthogonal vectors of length 1 (the cosine transform's).
double cosine(int64_t n, int64_t k, int64_t i) {
  const auto length = static_cast<double>(n);
  return std::sqrt((k == 0 ? 1 : 2) / length) *
         std::cos(std::numbers::pi * (static_cast<double>(i) + 0.5) * static_cast<double>(k) / length);
}

constexpr int64_t kOut = 70, kIn = 300, kFound = 5;  // no multiples of what is computed at once

// The sum of the first `count` of the terms value(k) u_k v_k^T, [kOut, kIn].
template <class Value>
std::vector<float> sum_of(int64_t count, const Value& value) {
  std::vector<double> sums(kOut * kIn);
  for (int64_t k = 0; k < count; ++k) {
    std::vector<double> v;
    for (int64_t j = 0; j < kIn; ++j) v.push_back(value(k) * cosine(kIn, k + 1, j));
    for (int64_t i = 0; i < kOut; ++i) {
      const double u = cosine(kOut, k, i);
      for (int64_t j = 0; j < kIn; ++j) sums[static_cast<size_t>(i * kIn + j)] += u * v[static_cast<size_t>(j)];
    }
  }
  return {sums.begin(), sums.end()};
}

double falling(int64_t k) {
  return 10 * std::pow(0.8, static_cast<double>(k));
}

std::vector<float> product(const PrincipalPair& pair, int64_t rank, double s) {
  std::vector<float> w(kOut * kIn);
  for (int64_t i = 0; i < kOut; ++i)
    for (int64_t j = 0; j < kIn; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < rank; ++k)
        sum +=
            static_cast<double>(pair.b[static_cast<size_t>(i * rank + k)]) * pair.a[static_cast<size_t>(k * kIn + j)];
      w[static_cast<size_t>(i * kIn + j)] = static_cast<float>(s * sum);
    }
  return w;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, static_cast<double>(std::abs(a[i] - b[i])));
  return largest;
}

TEST(PrincipalPair, HasTheLargestSingularValues) {
  for (const double s : {1.0, 2.0, 0.3}) {
    const PrincipalPair pair = principal_pair(sum_of(kOut, falling), kOut, kIn, kFound, s, 1);
    EXPECT_LT(largest_difference(product(pair, kFound, s), sum_of(kFound, falling)), 1e-5);
    for (int64_t k = 0; k < kFound; ++k) {
      double a = 0, b = 0;
      for (int64_t j = 0; j < kIn; ++j) a += std::pow(pair.a[static_cast<size_t>(k * kIn + j)], 2);
      for (int64_t i = 0; i < kOut; ++i) b += std::pow(pair.b[static_cast<size_t>(i * kFound + k)], 2);
      EXPECT_NEAR(a, falling(k) / s, 1e-4 * falling(k) / s) << k;
      EXPECT_NEAR(b, falling(k) / s, 1e-4 * falling(k) / s) << k;
    }
  }
}

// As many as the smaller side has: the pair is the whole matrix.
TEST(PrincipalPair, MayHaveAllOfThem) {
  const std::vector<float> w = sum_of(kOut, falling);
  EXPECT_LT(largest_difference(product(principal_pair(w, kOut, kIn, kOut, 2, 1), kOut, 2), w), 1e-4);
  std::vector<float> turned(w.size());
  for (int64_t i = 0; i < kOut; ++i)
    for (int64_t j = 0; j < kIn; ++j) turned[static_cast<size_t>(j * kOut + i)] = w[static_cast<size_t>(i * kIn + j)];
  const PrincipalPair straight = principal_pair(w, kOut, kIn, kFound, 2, 1),
                      across = principal_pair(turned, kIn, kOut, kFound, 2, 1);
  for (int64_t k = 0; k < kFound; ++k) {
    const float sign = straight.b[static_cast<size_t>(k)] * across.a[static_cast<size_t>(k * kOut)] < 0 ? -1 : 1;
    for (int64_t i = 0; i < kOut; ++i)
      EXPECT_NEAR(straight.b[static_cast<size_t>(i * kFound + k)], sign * across.a[static_cast<size_t>(k * kOut + i)],
                  1e-3)
          << k;
  }
}

TEST(PrincipalPair, OfFewerIsZeroBeyondThem) {
  constexpr int64_t kFew = 2;
  const std::vector<float> w = sum_of(kFew, falling);
  const PrincipalPair pair = principal_pair(w, kOut, kIn, kFound, 2, 1);
  EXPECT_LT(largest_difference(product(pair, kFound, 2), w), 1e-5);
  for (int64_t k = kFew; k < kFound; ++k) {
    for (int64_t j = 0; j < kIn; ++j) ASSERT_LT(std::abs(pair.a[static_cast<size_t>(k * kIn + j)]), 1e-2) << k;
    for (int64_t i = 0; i < kOut; ++i) ASSERT_LT(std::abs(pair.b[static_cast<size_t>(i * kFound + k)]), 1e-2) << k;
  }
  const PrincipalPair none = principal_pair(std::vector<float>(kOut * kIn), kOut, kIn, kFound, 2, 1);
  for (const auto* factor : {&none.a, &none.b})
    EXPECT_TRUE(std::ranges::all_of(*factor, [](float value) { return value == 0; }));
}

TEST(PrincipalPair, IsTheSameOnAnyNumberOfThreads) {
  const std::vector<float> w = sum_of(kOut, falling);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const PrincipalPair one = principal_pair(w, kOut, kIn, kFound, 2, 1);
  omp_set_num_threads(3);
  const PrincipalPair three = principal_pair(w, kOut, kIn, kFound, 2, 1);
  omp_set_num_threads(threads);
  EXPECT_EQ(one.a, three.a);
  EXPECT_EQ(one.b, three.b);
}

}  // namespace
}  // namespace mixtune
