#include "checkpoint/read_in_turn.h"

#include "checkpoint/test_model.h"

namespace mixtune {
namespace {

std::string random_text(size_t size, uint64_t key) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(random_bits(key, i));
  return text;
}

class ReadInTurn : public testing::Test {
 protected:
  std::string read(const std::vector<FileStretch>& stretches) {
    std::string all;
    size_t next = 0;
    uint64_t told = 0;
    const auto use = [&](size_t i, std::span<const std::byte> bytes) {
      EXPECT_EQ(i, next++);
      all.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    };
    read_in_turn(stretches, use, [&](uint64_t done, uint64_t of) {
      EXPECT_EQ(done, all.size());
      told = of;
    });
    EXPECT_EQ(next, stretches.size());
    EXPECT_EQ(told, all.size());
    return all;
  }

  TempFolder folder_;
};

TEST_F(ReadInTurn, GivesTheBytesOfSeveralFilesInTheOrderAskedFor) {
  const std::string a = random_text(100'001, 1), b = random_text(5'000, 2);
  put(folder_ / "a", a);
  put(folder_ / "b", b);
  const InputFile first(folder_ / "a"), second(folder_ / "b");
  std::vector<FileStretch> stretches;
  std::string expected;
  for (uint64_t i = 0; i < 20; ++i) {  // more than there are buffers
    stretches.push_back({&first, i * 5000 + i, (i + 1) * 5000});
    stretches.push_back({&second, i, i * 200});
    expected += a.substr(i * 5000 + i, 5000 - i) + b.substr(i, i * 199);
  }
  stretches.push_back({&first, a.size(), a.size()});
  EXPECT_EQ(read(stretches), expected);
  EXPECT_EQ(read({}), "");
}

TEST_F(ReadInTurn, WhatTheUserThrowsComesThrough) {
  put(folder_ / "a", random_text(10'000, 1));
  const InputFile file(folder_ / "a");
  const std::vector<FileStretch> stretches(10, {&file, 0, 10'000});
  int calls = 0;
  const auto fails = [&](size_t, std::span<const std::byte>) {
    if (++calls == 3) throw std::runtime_error("enough");
  };
  EXPECT_THROW(read_in_turn(stretches, fails), std::runtime_error);
  EXPECT_EQ(calls, 3);
}

TEST_F(ReadInTurn, AFileThatIsCutMeanwhileIsAnError) {
  put(folder_ / "a", random_text(10'000, 1));
  const InputFile file(folder_ / "a");
  std::filesystem::resize_file(folder_ / "a", 5'000);
  EXPECT_THROW(read({{&file, 0, 10'000}}), Error);
}

}  // namespace
}  // namespace mixtune
