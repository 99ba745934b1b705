#include "base/random_normals.h"

#include <algorithm>
#include <array>

#include "base/near_normal.h"
#include "base/random.h"

namespace mixtune {

namespace {

constexpr size_t kAtOnce = 256;

// Rounding is monotonic: where both ends of what near_normal leaves open round to one float, the exact value does. One
// in some ten thousand is computed; and 0, which has a sign.
void fill_normals(uint64_t key, uint64_t first, double deviation, std::span<float> values) {
  const uint64_t mixed_key = mix_key(key);
  std::array<float, kAtOnce> others;
  float* const low = values.data();
  float* const high = others.data();
  const size_t n = values.size();
#pragma omp simd
  for (size_t i = 0; i < n; ++i) {
    const uint64_t index = 2 * (first + i);
    const auto [value, radius] = near_normal(mixed_bits(mixed_key, index), mixed_bits(mixed_key, index + 1));
    low[i] = static_cast<float>(deviation * (value - kNearNormalError * radius));
    high[i] = static_cast<float>(deviation * (value + kNearNormalError * radius));
  }
  for (size_t i = 0; i < n; ++i)
    if (!(low[i] == high[i]) || low[i] == 0) low[i] = static_cast<float>(deviation * random_normal(key, first + i));
}

}  // namespace

void random_normals(uint64_t key, uint64_t first, double deviation, std::span<float> values) {
  for (size_t done = 0; done < values.size(); done += kAtOnce)
    fill_normals(key, first + done, deviation, values.subspan(done, std::min(kAtOnce, values.size() - done)));
}

}  // namespace mixtune
