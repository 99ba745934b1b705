#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <string>

#include "base/dtype.h"
#include "base/error.h"
#include "base/random.h"
#include "base/suggest.h"

namespace mixtune {
namespace {

TEST(DType, Bf16RoundsToNearestEven) {
  EXPECT_EQ(to_bf16(1.0f).bits, 0x3F80);
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3F808000u)).bits, 0x3F80);  // a tie goes to the even neighbour
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3F818000u)).bits, 0x3F82);
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3F808001u)).bits, 0x3F81);
  EXPECT_TRUE(std::isnan(to_float(to_bf16(std::bit_cast<float>(0x7F800001u)))));  // not rounded to infinity
  EXPECT_EQ(to_bf16(std::numeric_limits<float>::max()).bits, 0x7F80);
}

TEST(DType, Bf16RoundTripsEveryPattern) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const BF16 x{static_cast<uint16_t>(bits)};
    if (!std::isnan(to_float(x))) {
      EXPECT_EQ(to_bf16(to_float(x)).bits, x.bits);
    }
  }
}

TEST(DType, F16Values) {
  EXPECT_EQ(to_float(F16{0x3C00}), 1.0f);
  EXPECT_EQ(to_float(F16{0xC000}), -2.0f);
  EXPECT_EQ(to_float(F16{0x7BFF}), 65504.0f);
  EXPECT_EQ(to_float(F16{0x0001}), 0x1p-24f);
  EXPECT_EQ(to_float(F16{0x03FF}), 1023 * 0x1p-24f);
  EXPECT_TRUE(std::signbit(to_float(F16{0x8000})));
  EXPECT_TRUE(std::isinf(to_float(F16{0x7C00})));
  EXPECT_TRUE(std::isnan(to_float(F16{0x7E00})));
}

TEST(Error, OneLineWithWhereWhatMend) {
  const UserError error("a.yaml:3", "unknown key 'x'", "did you mean 'y'?");
  EXPECT_STREQ(error.what(), "a.yaml:3: unknown key 'x'; did you mean 'y'?");
  EXPECT_EQ(error.exit_code(), ExitCode::kUserError);
}

TEST(Error, PrintableHidesControlBytes) {
  EXPECT_EQ(printable("a\nb\x1b[2J"), "a\\x0ab\\x1b[2J");
  EXPECT_EQ(printable("caf\xc3\xa9"), "caf\xc3\xa9");
  EXPECT_EQ(printable("\xff\xc3"), "\\xff\\xc3");
  EXPECT_EQ(printable(std::string(200, 'x')).size(), 83u);
}

TEST(Error, Utf8) {
  EXPECT_TRUE(is_utf8(""));
  EXPECT_TRUE(is_utf8("a\xc2\x80\xed\x9f\xbf\xee\x80\x80\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"));
  for (const char* text : {"\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
                           "\xf5\x80\x80\x80", "\xe2\x82", "\xc3(", "a\xff"})
    EXPECT_FALSE(is_utf8(text)) << printable(text);
}

TEST(Suggest, OnlySlipsOfThePen) {
  const std::array<std::string, 3> keys = {"learning_rate", "lr_scheduler_type", "seed"};
  EXPECT_EQ(nearest_name("learing_rate", keys), "learning_rate");
  EXPECT_EQ(nearest_name("zzzzzzzz", keys), "");
  EXPECT_EQ(nearest_name("lr_schedule_types", keys), "lr_scheduler_type");
  EXPECT_EQ(nearest_name("lr_schedule_tips", keys), "");  // three edits
  EXPECT_EQ(nearest_name("sede", keys), "seed");
  EXPECT_EQ(nearest_name("sad", keys), "");    // two edits leave nothing of so short a word
  EXPECT_EQ(nearest_name("seed1", keys), "");  // digits are meant
}

TEST(Random, DependsOnlyOnSeedPurposeIndex) {
  const uint64_t key = random_key(1, "a");
  EXPECT_EQ(key, random_key(1, "a"));
  EXPECT_NE(key, random_key(2, "a"));
  EXPECT_NE(key, random_key(1, "b"));
  double sum = 0, squares = 0;
  constexpr int kN = 100000;
  for (int i = 0; i < kN; ++i) {
    const double x = random_normal(key, i);
    sum += x;
    squares += x * x;
    EXPECT_LT(random_below(key, i, 7), 7u);
  }
  EXPECT_NEAR(sum / kN, 0, 4 / std::sqrt(kN));  // four standard errors
  EXPECT_NEAR(squares / kN, 1, 4 * std::sqrt(2.0 / kN));
}

}  // namespace
}  // namespace mixtune
