// Files of indexed data that are not what they should be get one line that says what is wrong, and no signal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <limits>

#include "data/indexed_testing.h"
#include "data/weights.h"

namespace mixtune {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A data set of one document of two sequences, [1, 2, 3] and [4], whose bytes a test changes.
class HostileTest : public testing::Test {
 protected:
  HostileTest() { write_data_set(prefix_, {{{1, 2, 3}, {4}}}); }

  void put(const std::string& ending, size_t at, std::string_view bytes) {
    std::string content = TestFolder::read(prefix_ + ending);
    content.resize(std::max(content.size(), at + bytes.size()));
    folder_.write("data" + ending, content.replace(at, bytes.size(), bytes));
  }
  template <class Value>
  void put_value(const std::string& ending, size_t at, Value value) {
    put(ending, at, {reinterpret_cast<const char*>(&value), sizeof value});
  }
  std::string message(int64_t vocab_size = kVocab) {
    return user_error([&] {
      const IndexedReader reader(prefix_, vocab_size);
      read_all(reader);
      for (int64_t s = 0; s < reader.sequences(); ++s) weights_of(reader, s);
    });
  }
  // The message for an index with `value` at byte `at`; afterwards the index is whole again.
  template <class Value>
  std::string message_with(size_t at, Value value) {
    const std::string idx = TestFolder::read(prefix_ + ".idx");
    put_value(".idx", at, value);
    const std::string said = message();
    folder_.write("data.idx", idx);
    return said;
  }

  TestFolder folder_;
  const std::string prefix_ = folder_.path("data");
};

TEST_F(HostileTest, Headers) {
  EXPECT_EQ(message(), "");
  EXPECT_THAT(message_with(0, 'm'), HasSubstr("is not an index of Megatron's"));
  EXPECT_THAT(message_with(9, uint64_t{2}), HasSubstr("has version 2, not 1"));
  for (const uint8_t type : {0, 9, 255}) EXPECT_THAT(message_with(17, type), HasSubstr("has the token type"));
  for (const uint8_t type : {6, 7}) EXPECT_THAT(message_with(17, type), HasSubstr("floating-point"));
  const uint64_t huge = std::numeric_limits<uint64_t>::max();
  for (const uint64_t count : {uint64_t{3}, huge, huge / 12 + 1, uint64_t{1} << 62}) {
    EXPECT_THAT(message_with(18, count), HasSubstr("too few for")) << count;
    EXPECT_THAT(message_with(26, count), HasSubstr("too few for")) << count;
  }
  EXPECT_THAT(message_with(18, uint64_t{1}), HasSubstr("bytes more than 1 sequences and 2 document indices take"));
  EXPECT_THAT(message_with(26, uint64_t{0}), HasSubstr("has no document index"));
}

TEST_F(HostileTest, Sequences) {
  EXPECT_THAT(message_with(34, int32_t{-1}), HasSubstr("sequence 0 has the length -1"));
  EXPECT_THAT(message_with(38, int32_t{2}), HasSubstr("has 16 bytes, but sequence 1 of its index ends at 20"));
  EXPECT_THAT(message_with(38, std::numeric_limits<int32_t>::max()), HasSubstr("but sequence 1 of its index ends"));
  EXPECT_THAT(message_with(38, int32_t{0}), HasSubstr("has 16 bytes, but its index is of 12"));
  for (const int64_t pointer : {int64_t{0}, int64_t{13}, int64_t{-4}, std::numeric_limits<int64_t>::max()})
    EXPECT_THAT(message_with(50, pointer), HasSubstr("where the one before ends at 12")) << pointer;
}

TEST_F(HostileTest, Documents) {
  EXPECT_THAT(message_with(58, int64_t{1}), HasSubstr("its first document index is 1, not 0"));
  EXPECT_THAT(message_with(66, int64_t{1}), HasSubstr("its documents end at sequence 1 of 2"));
  EXPECT_THAT(message_with(66, int64_t{3}), HasSubstr("document index 1 is 3, after 0 and of 2 sequences"));
  EXPECT_THAT(message_with(66, int64_t{-1}), HasSubstr("document index 1 is -1"));
}

TEST_F(HostileTest, Tokens) {
  EXPECT_THAT(message(4), HasSubstr("data.bin: token 3 is 4, outside the model's vocabulary of 4"));
  put_value(".bin", 4, int32_t{-7});
  EXPECT_THAT(message(), HasSubstr("token 1 is -7, outside"));
}

TEST_F(HostileTest, Sizes) {
  put(".idx", 74, "xy");
  EXPECT_THAT(message(), HasSubstr("has modes of its sequences (multimodal data)"));
  put(".idx", 76, "z");
  EXPECT_THAT(message(), HasSubstr("has 3 bytes more"));
  put(".bin", 16, "z");
  std::filesystem::resize_file(prefix_ + ".idx", 74);
  EXPECT_THAT(message(), HasSubstr("has 17 bytes, but its index is of 16"));
  for (const size_t size : {0, 8, 33, 40, 73}) {
    std::filesystem::resize_file(prefix_ + ".idx", size);
    EXPECT_NE(message(), "") << size;
  }
  std::filesystem::remove(prefix_ + ".idx");
  EXPECT_THAT(message(), HasSubstr("data.idx: cannot be opened"));
}

TEST_F(HostileTest, Masks) {
  const std::string good("MTMASK\0\0\1\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0\xF", 25);
  folder_.write("data.mask", good);
  EXPECT_EQ(message(), "");
  const auto with = [&](size_t at, char byte) {
    std::string mask = good;
    mask[at] = byte;
    folder_.write("data.mask", mask);
    return message();
  };
  EXPECT_THAT(with(0, 'm'), HasSubstr("data.mask: is not a mask"));
  EXPECT_THAT(with(8, 2), HasSubstr("has version 2"));
  EXPECT_THAT(with(16, 5), HasSubstr("is of 5 tokens, the data set of 4"));
  EXPECT_THAT(with(24, 0x1F), HasSubstr("has bits after its last token"));
  folder_.write("data.mask", good + "x");
  EXPECT_THAT(message(), HasSubstr("has 26 bytes, not 25"));
  folder_.write("data.mask", good.substr(0, 20));
  EXPECT_THAT(message(), HasSubstr("is not a mask"));
}

TEST_F(HostileTest, Weights) {
  std::string good("MTWEIGHT\1\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0", 24);
  for (const float weight : {1.0F, 0.5F, kMaxWeight, kMinWeight})
    good.append(reinterpret_cast<const char*>(&weight), sizeof weight);
  folder_.write("data.weights", good);
  EXPECT_EQ(message(), "");
  const auto with = [&](size_t at, char byte) {
    std::string weights = good;
    weights[at] = byte;
    folder_.write("data.weights", weights);
    return message();
  };
  EXPECT_THAT(with(0, 'm'), HasSubstr("data.weights: is not a file of weights"));
  EXPECT_THAT(with(8, 2), HasSubstr("has version 2"));
  EXPECT_THAT(with(16, 5), HasSubstr("is of 5 tokens, the data set of 4"));
  folder_.write("data.weights", good + "x");
  EXPECT_THAT(message(), HasSubstr("has 41 bytes, not 40"));
  folder_.write("data.weights", good.substr(0, 20));
  EXPECT_THAT(message(), HasSubstr("is not a file of weights"));
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const float weight : {nan, inf, -inf, -1.0F, 0.0F, 1e-7F, 10001.0F, 1e-45F}) {
    folder_.write("data.weights", good);
    put_value(".weights", 24 + 3 * sizeof weight, weight);
    EXPECT_THAT(message(), HasSubstr("data.weights: token 3 weighs ")) << weight;
  }
}

TEST_F(HostileTest, IntegersOfEveryType) {
  const auto stored = [&](TokenType type, std::string_view bytes) {
    std::string idx(kIndexMagic);
    const auto add = [&](auto value) {
      idx.append(reinterpret_cast<const char*>(&value), sizeof value);
    };
    add(kIndexVersion), add(type), add(int64_t{1}), add(int64_t{2});
    add(int32_t{2}), add(int64_t{0}), add(int64_t{0}), add(int64_t{1});
    folder_.write("data.idx", idx);
    folder_.write("data.bin", bytes);
    return ids_of(IndexedReader(prefix_, kVocab), 0);
  };
  const auto text = [](const auto& values) {
    return std::string_view(reinterpret_cast<const char*>(values.data()), sizeof values);
  };
  EXPECT_THAT(stored(TokenType::kU8, "\x07\xFF"), ElementsAre(7, 255));
  EXPECT_THAT(stored(TokenType::kI8, "\x07\x7F"), ElementsAre(7, 127));
  EXPECT_THAT(stored(TokenType::kI16, text(std::array<int16_t, 2>{7, 32767})), ElementsAre(7, 32767));
  EXPECT_THAT(stored(TokenType::kU16, text(std::array<uint16_t, 2>{7, 65535})), ElementsAre(7, 65535));
  EXPECT_THAT(stored(TokenType::kI32, text(std::array<int32_t, 2>{7, 199999})), ElementsAre(7, 199999));
  EXPECT_THAT(stored(TokenType::kI64, text(std::array<int64_t, 2>{7, 199999})), ElementsAre(7, 199999));
  EXPECT_THAT(user_error([&] { stored(TokenType::kI8, "\x07\xFF"); }), HasSubstr("token 1 is -1"));
  EXPECT_THAT(user_error([&] {
                stored(TokenType::kI64, text(std::array<int64_t, 2>{1, (int64_t{1} << 32) + 1}));
              }),
              HasSubstr("token 1 is 4294967297"));
}

TEST_F(HostileTest, FilesThatChangeWhileTheyAreOpen) {
  const IndexedReader reader(prefix_, kVocab);
  std::filesystem::resize_file(prefix_ + ".bin", 6);
  EXPECT_THROW(ids_of(reader, 0), Error);
  std::filesystem::resize_file(prefix_ + ".idx", 40);
  EXPECT_THROW(reader.length(1), Error);
}

}  // namespace
}  // namespace mixtune
