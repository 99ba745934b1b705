#include "base/size.h"

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace mixtune {
namespace {

std::string refusal(std::string_view text) {
  try {
    return std::to_string(parse_size(text));
  } catch (const UserError& error) {
    return error.what();
  }
}

TEST(ParseSize, HuggingFaceUnits) {
  EXPECT_EQ(parse_size("5GB"), 5'000'000'000u);
  EXPECT_EQ(parse_size("1TB"), 1'000'000'000'000u);
  EXPECT_EQ(parse_size("500MB"), 500'000'000u);
  EXPECT_EQ(parse_size("3KB"), 3'000u);
  EXPECT_EQ(parse_size("2GiB"), 2ull << 30);
  EXPECT_EQ(parse_size("7KiB"), 7u << 10);
}

TEST(ParseSize, WhatIsNoSize) {
  for (const char* bad : {"", "GB", "5 GB", "5gb", "5Gb", "1.5GB", "-5GB", "0GB", "5GBx", "99999999999999999999",
                          "99999999TiB", "nan", "1e9", "5B"}) {
    EXPECT_NE(refusal(bad).find("'" + std::string(bad) + "' is not a size"), std::string::npos) << refusal(bad);
    EXPECT_NE(refusal(bad).find("5GB"), std::string::npos) << refusal(bad);
  }
}

TEST(ParseSize, ANumberNeedsItsUnit) {
  EXPECT_EQ(refusal("8"), "'8' has no unit; write 8GiB");
  for (const char* bad : {"0", "5000000000"}) {
    EXPECT_NE(refusal(bad).find("'" + std::string(bad) + "' has no unit"), std::string::npos) << refusal(bad);
    EXPECT_NE(refusal(bad).find("500MB, 5GB or 4GiB"), std::string::npos) << refusal(bad);
  }
}

}  // namespace
}  // namespace mixtune
