#include "checkpoint/quant_state.h"

#include <gtest/gtest.h>

#include "checkpoint/test_model.h"

namespace mixtune {
namespace {

constexpr std::string_view kPlain = R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [3, 5]})";
constexpr std::string_view kNested =
    R"({"quant_type": "nf4", "blocksize": 128, "dtype": "bfloat16", "shape": [2, 3, 64], "nested_blocksize": 256, )"
    R"("nested_dtype": "float32", "nested_offset": 0.0514})";

// `text` with its first `old` replaced.
std::string with(std::string_view text, std::string_view old, std::string_view other) {
  std::string result(text);
  return result.replace(result.find(old), old.size(), other);
}

TEST(QuantState, IsRead) {
  const QuantState plain = parse_quant_state(kPlain, "x"), nested = parse_quant_state(kNested, "x");
  EXPECT_EQ(plain.dtype, DType::kF16);
  EXPECT_EQ(plain.shape, (Shape{3, 5}));
  EXPECT_EQ(plain.block, 64);
  EXPECT_EQ(plain.blocks(), 1);
  EXPECT_FALSE(plain.offset);
  EXPECT_EQ(nested.dtype, DType::kBF16);
  EXPECT_EQ(nested.shape, (Shape{2, 3, 64}));
  EXPECT_EQ(nested.blocks(), 3);
  EXPECT_EQ(nested.offset, 0.0514F);
  EXPECT_EQ(parse_quant_state(with(kPlain, "float16", "float32"), "x").dtype, DType::kF32);
}

TEST(QuantState, WhatItMayNotSayIsNamed) {
  struct Bad {
    std::string_view text, old, other, message;
  };
  for (const Bad& bad : std::vector<Bad>{{kPlain, "\"nf4\"", "\"fp4\"", "quant_type is \"fp4\", but mixtune reads nf4"},
                                         {kPlain, "\"nf4\"", "4", "quant_type is 4"},
                                         {kPlain, "\"quant_type\": \"nf4\", ", "", "has no quant_type"},
                                         {kPlain, "64", "63", "blocksize is 63"},
                                         {kPlain, "64", "0", "blocksize is 0"},
                                         {kPlain, "64", "-64", "blocksize is -64"},
                                         {kPlain, "64", "8192", "blocksize is 8192"},
                                         {kPlain, "64", "\"64\"", "blocksize is \"64\""},
                                         {kPlain, "float16", "float64", "dtype is \"float64\""},
                                         {kPlain, "[3, 5]", "[]", "shape is []"},
                                         {kPlain, "[3, 5]", "null", "shape is null"},
                                         {kPlain, "[3, 5]", "[3, 0]", "shape is [3,0]"},
                                         {kPlain, "[3, 5]", "[3, -5]", "shape is [3,-5]"},
                                         {kPlain, "[3, 5]", "[3, 5.0]", "shape is [3,5.0]"},
                                         {kPlain, "[3, 5]", "[1, 1, 1, 1, 1]", "shape is"},
                                         {kPlain, "[3, 5]", "[16777216, 16777216]", "shape is"},
                                         {kPlain, "[3, 5]", "[4294967296, 4294967296, 4294967296]", "shape is"},
                                         {kPlain, "[3, 5]", "[18446744073709551615]", "shape is"},
                                         {kPlain, "[3, 5]", "[[3], 5]", "shape is"},
                                         {kPlain, "\"shape\"", "\"sizes\"", "a key that mixtune does not know: sizes"},
                                         {kNested, "256", "128", "nested_blocksize is 128"},
                                         {kNested, "float32", "float16", "nested_dtype is \"float16\""},
                                         {kNested, "0.0514", "1e300", "nested_offset is 1e+300"},
                                         {kNested, "0.0514", "null", "nested_offset is null"},
                                         {kNested, ", \"nested_offset\": 0.0514", "", "has no nested_offset"},
                                         {kNested, "\"nested_blocksize\": 256, ", "", "has no nested_blocksize"}})
    expect_user_error([&] { parse_quant_state(with(bad.text, bad.old, bad.other), "the state"); },
                      {"the state", std::string(bad.message)});
  for (const std::string& text : {std::string(), std::string("[]"), std::string("{"), std::string(5000, ' ')})
    expect_user_error([&] { parse_quant_state(text, "the state"); }, {"the state"});
}

}  // namespace
}  // namespace mixtune
