#include "kernels/digest.h"

#include <array>
#include <cstring>

#include "base/random.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

uint64_t digest_of(const Tensor& tensor) {
  TestCtx ctx;
  int64_t result = 0;
  digest(ctx, std::array{tensor}, host_tensor(&result, {1}));
  return static_cast<uint64_t>(result);
}

TEST(Digest, IsTheSumOfMixedWords) {
  const Buffer<float> x = Buffer<float>::random({1003}, "x");
  uint64_t expected = 0;
  for (int64_t i = 0; i < x.size(); ++i) {
    uint32_t word = 0;
    std::memcpy(&word, &x[i], sizeof(word));
    expected += mix_bits(word + static_cast<uint64_t>(i + 1) * 0x9E3779B97F4A7C15ull);
  }
  EXPECT_EQ(digest_of(Buffer<float>(x)), expected);
  EXPECT_EQ(digest_of(Buffer<float>({0})), 0u);
}

// Two bf16 numbers are a word; the last of an odd number of them shares its word with a zero.
TEST(Digest, AHalfWordAtTheEnd) {
  std::vector<uint16_t> bits = {0x3F80, 0xBF80, 0x4000};
  const auto digest_of_bits = [&](int64_t n) {
    return digest_of({bits.data(), {n}, DType::kBF16, {}});
  };
  EXPECT_EQ(digest_of_bits(3),
            mix_bits(0xBF803F80 + 0x9E3779B97F4A7C15ull) + mix_bits(0x4000 + 2 * 0x9E3779B97F4A7C15ull));
  bits.push_back(0);
  EXPECT_EQ(digest_of_bits(3), digest_of_bits(4));
}

TEST(Digest, AnyFlippedBitAndAnyExchangeChangesIt) {
  Buffer<float> x = Buffer<float>::random({50}, "x");
  const uint64_t before = digest_of(x);
  auto* words = reinterpret_cast<uint32_t*>(&x[0]);
  for (int bit = 0; bit < 32 * 50; ++bit) {
    words[bit / 32] ^= 1u << bit % 32;
    EXPECT_NE(digest_of(x), before) << bit;
    words[bit / 32] ^= 1u << bit % 32;
  }
  std::swap(x[3], x[40]);
  EXPECT_NE(digest_of(x), before);
  std::swap(x[3], x[40]);
  EXPECT_EQ(digest_of(x), before);
  x[7] = 0.0f;
  const uint64_t zero = digest_of(x);
  x[7] = -0.0f;
  EXPECT_NE(digest_of(x), zero);  // the digest is of bits, not of numbers
}

TEST(Digest, OfEachTensorOfAList) {
  TestCtx ctx;
  Buffer<float> a = Buffer<float>::random({300}, "a"), b = Buffer<float>::random({7}, "b");
  std::array<int64_t, 3> together{};
  digest(ctx, std::array{a.tensor(), b.tensor(), a.tensor()}, host_tensor(together.data(), {3}));
  EXPECT_EQ(static_cast<uint64_t>(together[0]), digest_of(a));
  EXPECT_EQ(static_cast<uint64_t>(together[1]), digest_of(b));
  EXPECT_EQ(together[2], together[0]);
}

}  // namespace
}  // namespace mixtune
