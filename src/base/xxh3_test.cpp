#include "base/xxh3.h"

#include <gtest/gtest.h>

#include <string_view>

namespace mixtune {
namespace {

TEST(Xxh3Test, GivesTheAlgorithmsOwnVectors) {
  Xxh3 hash;
  EXPECT_EQ(hash.take(), "2d06800538d394c2");
  for (const std::string_view part : {"a", "bc"}) hash.add(std::as_bytes(std::span(part)));
  EXPECT_EQ(hash.take(), "78af5f94892f3950");  // of "abc"
  EXPECT_EQ(hash.take(), "2d06800538d394c2");
}

}  // namespace
}  // namespace mixtune
