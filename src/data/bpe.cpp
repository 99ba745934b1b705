#include "data/bpe.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <utility>

#include "base/error.h"

namespace mixtune {

namespace {

constexpr size_t kShort = 32;  // symbols of a word up to which looking at every pair is faster than a heap
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// The bytes of the character that `text` begins with; 0 where it is not UTF-8.
size_t character_size(std::string_view text) {
  const auto byte = [&](size_t i) {
    return static_cast<unsigned char>(text[i]);
  };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const size_t size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || size > text.size()) return 0;
  for (size_t i = 1; i < size; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  if ((first == 0xE0 && byte(1) < 0xA0) || (first == 0xED && byte(1) > 0x9F)) return 0;
  if ((first == 0xF0 && byte(1) < 0x90) || (first == 0xF4 && byte(1) > 0x8F)) return 0;
  return size;
}

// The code point of a character of at most 3 bytes.
uint32_t code_point(std::string_view character) {
  const auto byte = [&](size_t i) {
    return static_cast<unsigned char>(character[i]);
  };
  if (character.size() == 1) return byte(0);
  if (character.size() == 2) return (byte(0) & 0x1Fu) << 6 | (byte(1) & 0x3Fu);
  return (byte(0) & 0x0Fu) << 12 | (byte(1) & 0x3Fu) << 6 | (byte(2) & 0x3Fu);
}

std::string_view first_character(std::string_view piece) {
  return piece.substr(0, character_size(piece));
}

std::string_view last_character(std::string_view piece) {
  size_t begin = piece.size() - 1;
  while ((static_cast<unsigned char>(piece[begin]) & 0xC0) == 0x80) --begin;
  return piece.substr(begin);
}

}  // namespace

PairMap::PairMap(size_t capacity) : entries_(std::bit_ceil(2 * capacity + 1)), mask_(entries_.size() - 1) {}

void PairMap::set(int32_t left, int32_t right, Value value) {
  const uint64_t pair = key(left, right);
  entries_[place(pair)] = {pair, value};
}

Bpe::Bpe(BpeModel model)
    : model_(std::move(model)), merges_(model_.merges.size()), joinable_(4 * model_.merges.size()) {
  for (int32_t id = 0; id < size(); ++id) ids_.emplace(piece(id), id);
  for (size_t rank = 0; rank < model_.merges.size(); ++rank) {
    const BpeModel::Merge& merge = model_.merges[rank];
    merges_.set(merge.left, merge.right, {static_cast<int32_t>(rank), merge.merged});
  }
  find_characters();
  find_joinable();
}

std::optional<int32_t> Bpe::find(std::string_view piece) const {
  const auto found = ids_.find(piece);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<char> Bpe::byte_of(int32_t id) const {
  const auto found = std::ranges::find(of_byte_, id);
  return found == of_byte_.end() ? std::nullopt : std::optional(static_cast<char>(found - of_byte_.begin()));
}

void Bpe::find_characters() {
  of_character_.assign(1 << 16, -1);
  for (int32_t id = 0; id < size(); ++id)
    if (piece(id).size() <= 3 && character_size(piece(id)) == piece(id).size())
      of_character_[code_point(piece(id))] = id;
  if (model_.unk >= 0) return;
  for (int byte = 0; byte < 256; ++byte) {
    const auto id = find(fmt::format("<0x{:02X}>", byte));
    MT_CHECK(id);
    of_byte_.push_back(*id);
  }
}

// The first and last of a piece in a text is its first or last character, if that is a piece, or the whole.
void Bpe::find_joinable() {
  const auto edges = [&](int32_t id, std::string_view character) {
    return std::array{id, find(character).value_or(id)};
  };
  for (const BpeModel::Merge& merge : model_.merges)
    for (const int32_t left : edges(merge.left, last_character(piece(merge.left))))
      for (const int32_t right : edges(merge.right, first_character(piece(merge.right))))
        joinable_.set(left, right, {.rank = 0});
}

int32_t Bpe::find_character(std::string_view character) const {
  return character.size() <= 3 ? of_character_[code_point(character)] : find(character).value_or(-1);
}

void Bpe::encode(std::string_view text, std::vector<Symbol>& out) const {
  MT_CHECK(text.size() <= std::numeric_limits<uint32_t>::max());
  if (model_.ignore_merges)
    if (const auto whole = find(text)) return out.push_back({*whole, 0});
  std::vector<Symbol> word;  // no merge reaches over its begin
  int32_t last = -1;
  for (size_t at = 0; at < text.size();) {
    const size_t size = character_size(text.substr(at));
    const std::string_view character = size > 0 ? text.substr(at, size) : kReplacement;
    const auto begin = static_cast<uint32_t>(at);
    at += std::max<size_t>(size, 1);
    const int32_t id = find_character(character);
    const bool is_bytes = id < 0 && model_.unk < 0;
    const int32_t next = id >= 0 ? id : is_bytes ? of_byte(character[0]) : model_.unk;
    if (id < 0 && !is_bytes && model_.fuse_unk && last == next) continue;
    if (last >= 0 && joinable_.find(last, next).rank < 0) take(word, out);
    word.push_back({next, begin});
    if (is_bytes)
      for (const char byte : character.substr(1)) word.push_back({of_byte(byte), begin});
    last = word.back().id;
  }
  take(word, out);
}

// Appends the tokens of a word, which is left empty.
void Bpe::take(std::vector<Symbol>& word, std::vector<Symbol>& out) const {
  if (word.size() > kShort)
    merge_long(word);
  else if (word.size() > 1)
    merge_short(word);
  out.insert(out.end(), word.begin(), word.end());
  word.clear();
}

void Bpe::merge_short(std::vector<Symbol>& word) const {
  size_t count = word.size();
  std::array<PairMap::Value, kShort> pairs;  // of each symbol and its next
  for (size_t i = 0; i + 1 < count; ++i) pairs[i] = merges_.find(word[i].id, word[i + 1].id);
  while (true) {
    size_t best = count;
    for (size_t i = 0; i + 1 < count; ++i)
      if (pairs[i].rank >= 0 && (best == count || pairs[i].rank < pairs[best].rank)) best = i;
    if (best == count) break;
    word[best].id = pairs[best].id;
    --count;
    for (size_t i = best + 1; i < count; ++i) word[i] = word[i + 1];
    for (size_t i = best + 1; i + 1 < count; ++i) pairs[i] = pairs[i + 1];
    if (best > 0) pairs[best - 1] = merges_.find(word[best - 1].id, word[best].id);
    if (best + 1 < count) pairs[best] = merges_.find(word[best].id, word[best + 1].id);
  }
  word.resize(count);
}

void Bpe::merge_long(std::vector<Symbol>& word) const {
  constexpr uint32_t kEnd = std::numeric_limits<uint32_t>::max();
  struct Candidate {
    int32_t rank;
    uint32_t at;
    int32_t id;
  };
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
  };
  const auto count = static_cast<uint32_t>(word.size());
  std::vector<uint32_t> next(count), previous(count);
  std::vector<Candidate> heap;
  const auto look = [&](uint32_t left, uint32_t right) {
    const PairMap::Value value = merges_.find(word[left].id, word[right].id);
    if (value.rank >= 0) heap.push_back({value.rank, left, value.id});
    return value.rank >= 0;
  };
  for (uint32_t i = 0; i < count; ++i) {
    next[i] = i + 1 < count ? i + 1 : kEnd;
    previous[i] = i > 0 ? i - 1 : kEnd;
    if (i > 0) look(i - 1, i);
  }
  std::ranges::make_heap(heap, later);
  while (!heap.empty()) {
    std::ranges::pop_heap(heap, later);
    const Candidate best = heap.back();
    heap.pop_back();
    const uint32_t at = best.at, right = next[at];
    if (word[at].id < 0 || right == kEnd || merges_.find(word[at].id, word[right].id).id != best.id) continue;
    word[at].id = best.id;
    word[right].id = -1;  // now a part of the one before
    next[at] = next[right];
    if (next[at] != kEnd) previous[next[at]] = at;
    if (previous[at] != kEnd && look(previous[at], at)) std::ranges::push_heap(heap, later);
    if (next[at] != kEnd && look(at, next[at])) std::ranges::push_heap(heap, later);
  }
  std::erase_if(word, [](const Symbol& symbol) { return symbol.id < 0; });
}

}  // namespace mixtune
