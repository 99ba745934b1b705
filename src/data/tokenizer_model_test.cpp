#include "data/tokenizer_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "data/charsmap.h"
#include "data/test_folder.h"
#include "data/tokenizer.h"

namespace mixtune {
namespace {

using testing::HasSubstr;

std::string bytes_of(const std::vector<uint32_t>& words) {
  return {reinterpret_cast<const char*>(words.data()), words.size() * sizeof(words[0])};
}

constexpr uint32_t kValue = 1u << 31;  // in a unit that no byte leads to

// A double array in which each node's children lie in a block of 256 units of their own.
class TrieBuilder {
 public:
  explicit TrieBuilder(uint32_t blocks) : units_(256 * blocks, kValue) {}

  static uint32_t offset(uint32_t from, uint32_t block) { return (from ^ (256 * block)) << 10; }
  void root(uint32_t block) { units_[0] = offset(0, block); }
  // Adds the child by `byte` in `block`, whose own children are in `next`.
  void child(uint32_t block, unsigned char byte, uint32_t next, bool leaf = false) {
    const uint32_t unit = 256 * block ^ byte;
    units_[unit] = byte | offset(unit, next) | (leaf ? 1u << 8 : 0);
  }
  void value(uint32_t block, uint32_t value) { units_[256 * block] = value | kValue; }

  std::string charsmap(std::string_view replacements) const {
    const std::string trie = bytes_of(units_);
    return bytes_of({static_cast<uint32_t>(trie.size())}) + trie + std::string(replacements);
  }

 private:
  std::vector<uint32_t> units_;
};

// A trie by which "ab" becomes "cd", "a" becomes "".
TrieBuilder small_trie() {
  TrieBuilder trie(4);
  trie.root(1);
  trie.child(1, 'a', 2, true);
  trie.value(2, 3);
  trie.child(2, 'b', 3, true);
  trie.value(3, 0);
  return trie;
}

constexpr std::string_view kReplacements("cd\0\0", 4);

std::string field(int number, std::string_view bytes) {
  std::string text(1, static_cast<char>(number << 3 | 2));
  for (size_t size = bytes.size();; size >>= 7) {
    text += static_cast<char>((size & 0x7f) | (size > 0x7f ? 0x80 : 0));
    if (size <= 0x7f) return text += bytes;
  }
}

std::string normalizer(std::string_view charsmap) {
  return field(3, field(2, charsmap));
}

std::string fixture() {
  return TestFolder::read(kTokenizerFixtures + "/tokenizer.model");
}

std::string refusal(const std::string& model) {
  return user_error([&] { check_tokenizer_model(model, "t.model"); });
}

TEST(Charsmap, ASoundOneWorks) {
  EXPECT_TRUE(is_sound_charsmap(""));
  const std::string charsmap = small_trie().charsmap(kReplacements);
  EXPECT_TRUE(is_sound_charsmap(charsmap));
  const TestFolder folder;
  const std::string mapped = folder.write("tokenizer.model", fixture() + normalizer(charsmap));
  EXPECT_EQ(open_tokenizer(mapped)->encode("xabya z"), open_tokenizer(kTokenizerFixtures)->encode("xcdy z"));
}

TEST(Charsmap, WhatLeadsOutIsNotSound) {
  const auto unsound = [](const TrieBuilder& trie, std::string_view replacements = kReplacements) {
    EXPECT_FALSE(is_sound_charsmap(trie.charsmap(replacements)));
  };
  TrieBuilder trie = small_trie();
  trie.root(4);  // one block too far
  unsound(trie);
  trie = small_trie();
  trie.child(2, 'b', 4, true);
  unsound(trie);
  trie = small_trie();
  trie.value(3, 4);  // behind the replacements
  unsound(trie);
  trie = small_trie();
  trie.value(2, 0x7fffffff);
  unsound(trie);
  trie = small_trie();
  trie.child(2, 'b', 1, true);  // "abab..." never ends
  unsound(trie);
  unsound(small_trie(), std::string_view("cd\0e", 4));  // the last replacement has no end
  unsound(small_trie(), "");
}

// sentencepiece keeps 32 of the texts that begin in one place, but looks at all of them.
TEST(Charsmap, OnlySoManyTextsBeginAlike) {
  const auto nested = [](uint32_t depth) {
    TrieBuilder trie(depth + 2);
    trie.root(1);
    for (uint32_t i = 1; i <= depth; ++i) {
      trie.child(i, 'a', i + 1, true);
      trie.value(i + 1, 0);
    }
    return is_sound_charsmap(trie.charsmap(kReplacements));
  };
  EXPECT_TRUE(nested(32));
  EXPECT_FALSE(nested(33));
}

TEST(Charsmap, SizesThatDoNotFit) {
  const std::string good = small_trie().charsmap(kReplacements);
  for (size_t size = 1; size < good.size(); size += size < 16 || size + 16 > good.size() ? 1 : 97)
    EXPECT_FALSE(is_sound_charsmap(good.substr(0, size))) << size;
  for (const uint32_t size : {0u, 1u, 2u, 4095u, 4097u, 4100u, 1u << 20, 0xffffffffu})
    EXPECT_FALSE(is_sound_charsmap(bytes_of({size}) + good.substr(4))) << size;
  // The trie has too few units for any text, and a number of them that is no multiple of 256.
  EXPECT_FALSE(is_sound_charsmap(bytes_of({4, 1u << 10, 0})));
}

TEST(TokenizerModel, TheFixtureIsSound) {
  EXPECT_EQ(refusal(fixture()), "");
}

TEST(TokenizerModel, AHostileCharsmapIsRefusedBeforeItIsLoaded) {
  TrieBuilder trie = small_trie();
  trie.child(2, 'b', 1u << 12, true);  // far out
  const std::string hostile = trie.charsmap(kReplacements);
  const TestFolder folder;
  const std::string path = folder.write("tokenizer.model", fixture() + normalizer(hostile));
  EXPECT_THAT(user_error([&] { open_tokenizer(path)->encode("abababab"); }),
              HasSubstr("tokenizer.model: has a precompiled_charsmap that leads out of itself"));
  EXPECT_THAT(refusal(field(5, field(2, hostile))), HasSubstr("precompiled_charsmap"));  // of denormalizer_spec
  EXPECT_THAT(refusal(normalizer(small_trie().charsmap(kReplacements)) + normalizer(hostile)),
              HasSubstr("precompiled_charsmap"));
}

TEST(TokenizerModel, PiecesAreBounded) {
  const auto piece = [](size_t length) {
    return field(1, field(1, std::string(length, 'x')));
  };
  EXPECT_EQ(refusal(piece(1024)), "");
  EXPECT_THAT(refusal(piece(1025)), HasSubstr("t.model: has a piece of 1025 bytes, more than 1024"));
  EXPECT_THAT(refusal(field(1, field(1, std::string("a\0b", 3)))), HasSubstr("has a piece with a zero byte"));
  std::string many;
  for (int i = 0; i < (1 << 20) + 1; ++i) many += std::string("\x0a\0", 2);
  EXPECT_THAT(refusal(many), HasSubstr("has more than 1048576 pieces"));
}

TEST(TokenizerModel, MessagesThatAreNotSound) {
  using namespace std::string_literals;
  for (const std::string& bad : {"\x0a"s,
                                 "\x0a\x05"s
                                 "abc"s,
                                 "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"s, "\x08"s, "\x08\xff"s,
                                 "\x09"s
                                 "1234567"s,
                                 "\x0d"s
                                 "123"s,
                                 "\x0b"s, "\x0c"s, "\x0f"s, "\x00"s, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"s,
                                 "\x8a\x80\x80\x80\x10\x00"s,  // field 1 of more than 32 bits
                                 field(1, "\x0a\x05"s), field(3, "\x12"s)})
    EXPECT_THAT(refusal(bad), HasSubstr("is not a sound sentencepiece model")) << testing::PrintToString(bad);
}

}  // namespace
}  // namespace mixtune
