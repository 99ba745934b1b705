// Random bits, each a hash of its purpose: so they do not depend on order, threads or layout.
#pragma once

#include <cstdint>
#include <string_view>

namespace mixtune {

// SplitMix64's finaliser (Steele, Lea, Flood 2014): a bijection of 64 bits with full avalanche.
constexpr uint64_t mix_bits(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

// random_bits(key, index) = mixed_bits(mix_key(key), index): a loop over indices mixes the key once.
constexpr uint64_t mix_key(uint64_t key) {
  return mix_bits(key + 0x9E3779B97F4A7C15ull);
}
constexpr uint64_t mixed_bits(uint64_t mixed_key, uint64_t index) {
  return mix_bits(mixed_key ^ (index * 0x9E3779B97F4A7C15ull + 0xD1B54A32D192ED03ull));
}
constexpr uint64_t random_bits(uint64_t key, uint64_t index) {
  return mixed_bits(mix_key(key), index);
}

// 32 bits to round element `index` with: half of random_bits(key, index / 2), the lower half for an even index.
constexpr uint32_t rounding_bits(uint64_t key, uint64_t index) {
  return static_cast<uint32_t>(random_bits(key, index >> 1) >> (32 * (index & 1)));
}

// A key for the bits of one purpose: a name (FNV-1a hashed) under a seed.
uint64_t random_key(uint64_t seed, std::string_view purpose);

// A uniform number in [0, 1) with 53 bits.
inline double random_uniform(uint64_t key, uint64_t index) {
  return static_cast<double>(random_bits(key, index) >> 11) * 0x1p-53;
}

// A standard normal number (Box-Muller on the two halves of one index).
double random_normal(uint64_t key, uint64_t index);

// A uniform number in [0, n), n > 0, by multiply-shift (bias below n / 2^64).
inline uint64_t random_below(uint64_t key, uint64_t index, uint64_t n) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>((static_cast<Wide>(random_bits(key, index)) * n) >> 64);
}

}  // namespace mixtune
