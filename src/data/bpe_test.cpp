#include "data/bpe.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace mixtune {
namespace {

using testing::ElementsAre;

// A model of "a", "b" and "c", and of random merges of them.
BpeModel random_model(std::mt19937& random, int merges) {
  BpeModel model{.pieces = {"?", "a", "b", "c"}, .unk = 0};
  const auto any = [&](size_t count) {
    return static_cast<int32_t>(random() % count);
  };
  std::map<std::string, int32_t> ids = {{"a", 1}, {"b", 2}, {"c", 3}};
  for (int i = 0; i < merges; ++i) {
    const int32_t left = 1 + any(model.pieces.size() - 1), right = 1 + any(model.pieces.size() - 1);
    const std::string text = model.pieces[static_cast<size_t>(left)] + model.pieces[static_cast<size_t>(right)];
    if (text.size() > 12) continue;
    const auto [found, added] = ids.emplace(text, static_cast<int32_t>(model.pieces.size()));
    if (added) model.pieces.push_back(text);
    model.merges.push_back({left, right, found->second});
  }
  return model;
}

// By definition: of all pairs side by side, merges the leftmost of the lowest rank, again and again.
std::vector<int32_t> by_definition(const BpeModel& model, const std::string& text) {
  std::map<std::pair<int32_t, int32_t>, size_t> ranks;
  for (size_t rank = 0; rank < model.merges.size(); ++rank)
    ranks[{model.merges[rank].left, model.merges[rank].right}] = rank;
  std::vector<int32_t> ids;
  for (const char c : text) ids.push_back(c - 'a' + 1);
  while (true) {
    size_t best = model.merges.size(), at = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = ranks.find({ids[i], ids[i + 1]});
      if (found == ranks.end() || found->second >= best) continue;
      best = found->second;
      at = i;
    }
    if (best == model.merges.size()) return ids;
    ids[at] = model.merges[best].merged;
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(at) + 1);
  }
}

std::vector<int32_t> encode(const Bpe& bpe, std::string_view text) {
  std::vector<Bpe::Symbol> symbols;
  bpe.encode(text, symbols);
  std::vector<int32_t> ids;
  for (const Bpe::Symbol& symbol : symbols) ids.push_back(symbol.id);
  return ids;
}

void expect_begins(const Bpe& bpe, std::string_view text) {
  std::vector<Bpe::Symbol> symbols;
  bpe.encode(text, symbols);
  size_t at = 0;
  for (const Bpe::Symbol& symbol : symbols) {
    EXPECT_EQ(symbol.begin, at);
    at += bpe.piece(symbol.id).size();
  }
}

TEST(Bpe, IsItsDefinition) {
  std::mt19937 random(5);
  for (int trial = 0; trial < 300; ++trial) {
    const BpeModel model = random_model(random, 1 + static_cast<int>(random() % 30));
    const Bpe bpe(model);
    for (size_t length : {0, 1, 2, 7, 31, 32, 33, 150}) {  // both ways to merge
      std::string text(length, 'a');
      for (char& c : text) c = static_cast<char>('a' + random() % 3);
      EXPECT_EQ(encode(bpe, text), by_definition(model, text)) << trial << " " << text;
      expect_begins(bpe, text);
    }
  }
}

TEST(Bpe, AMegabyteOfOneWordTakesNoSquare) {
  BpeModel model{.pieces = {"?", "a", "aa", "aaaa", "aaa"}, .merges = {{1, 1, 2}, {2, 2, 3}, {2, 1, 4}}, .unk = 0};
  const Bpe bpe(std::move(model));
  std::vector<Bpe::Symbol> symbols;
  bpe.encode(std::string((1 << 20) + 3, 'a'), symbols);
  ASSERT_EQ(symbols.size(), (1u << 18) + 1);
  EXPECT_EQ(symbols.back().id, 4);
  EXPECT_EQ(symbols.back().begin, 1u << 20);
}

TEST(Bpe, UnknownCharacters) {
  BpeModel model{.pieces = {"?", "a", "a?"}, .merges = {{1, 0, 2}}, .unk = 0};
  EXPECT_THAT(encode(Bpe(model), "b\xC3\xA9\xF0\x9F\xA4\x97"), ElementsAre(0, 0, 0));
  EXPECT_THAT(encode(Bpe(model), "ab"), ElementsAre(2));  // the piece for "b" is "?"
  model.fuse_unk = true;
  EXPECT_THAT(encode(Bpe(model), "b\xC3\xA9"), ElementsAre(0));
  EXPECT_THAT(encode(Bpe(model),
                     "\xFF\xC0\x80"
                     "a\xE2\x96"),
              ElementsAre(0, 2));
}

TEST(Bpe, BytesOfCharactersWithoutAPiece) {
  BpeModel model{.pieces = {"a"}};
  for (int byte = 0; byte < 256; ++byte) model.pieces.push_back(fmt::format("<0x{:02X}>", byte));
  const Bpe bpe(model);
  std::vector<Bpe::Symbol> symbols;
  bpe.encode("a\xC3\xA9\xFF", symbols);  // the last is not UTF-8, and so U+FFFD
  std::vector<std::string> pieces;
  std::vector<uint32_t> begins;
  for (const Bpe::Symbol& symbol : symbols) {
    pieces.push_back(bpe.piece(symbol.id));
    begins.push_back(symbol.begin);
  }
  EXPECT_THAT(pieces, ElementsAre("a", "<0xC3>", "<0xA9>", "<0xEF>", "<0xBF>", "<0xBD>"));
  EXPECT_THAT(begins, ElementsAre(0, 1, 1, 3, 3, 3));
  EXPECT_EQ(bpe.byte_of(1 + 0xC3), '\xC3');
  EXPECT_EQ(bpe.byte_of(0), std::nullopt);
}

TEST(Bpe, APieceThatNoMergesMakeNeedsIgnoreMerges) {
  BpeModel model{.pieces = {"?", "a", "b", "ab"}, .unk = 0};
  EXPECT_THAT(encode(Bpe(model), "ab"), ElementsAre(1, 2));
  model.ignore_merges = true;
  EXPECT_THAT(encode(Bpe(model), "ab"), ElementsAre(3));
}

}  // namespace
}  // namespace mixtune
