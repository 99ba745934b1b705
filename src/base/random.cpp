#include "base/random.h"

#include <cmath>
#include <numbers>

namespace mixtune {

uint64_t random_key(uint64_t seed, std::string_view purpose) {
  uint64_t hash = 0xCBF29CE484222325ull;
  for (const char c : purpose) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
  return mix_bits(hash ^ mix_bits(seed + 0x9E3779B97F4A7C15ull));
}

double random_normal(uint64_t key, uint64_t index) {
  const double radius = std::sqrt(-2 * std::log(1 - random_uniform(key, 2 * index)));
  return radius * std::cos(2 * std::numbers::pi * random_uniform(key, 2 * index + 1));
}

}  // namespace mixtune
