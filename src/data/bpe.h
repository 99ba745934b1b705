// Bpe: byte-pair encoding as tokenizers' BPE model does it: the merge of the lowest rank first, the leftmost of equals.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace mixtune {

struct BpeModel {
  struct Merge {
    int32_t left, right, merged;  // ids; the text of `merged` is that of the two
  };

  std::vector<std::string> pieces;  // by id; unique, none empty, valid UTF-8
  std::vector<Merge> merges;        // by rank; for a pair that stands twice, the last counts
  int32_t unk = -1;            // for characters without a piece; -1: they become pieces <0x00> to <0xFF>, all there
  bool fuse_unk = false;       // unknown characters side by side are one token
  bool ignore_merges = false;  // a word that is a piece is that piece
};

// Maps pairs of ids to two numbers.
class PairMap {
 public:
  struct Value {
    int32_t rank = -1, id = -1;  // rank -1: there is none
  };

  explicit PairMap(size_t capacity);
  void set(int32_t left, int32_t right, Value value);
  Value find(int32_t left, int32_t right) const { return entries_[place(key(left, right))].value; }

 private:
  static constexpr uint64_t kNone = ~uint64_t{0};
  struct Entry {
    uint64_t key = kNone;
    Value value;
  };

  static uint64_t key(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  size_t place(uint64_t key) const {
    uint64_t hash = (key ^ key >> 29) * 0xBF58476D1CE4E5B9u;
    hash ^= hash >> 32;
    size_t at = hash & mask_;
    while (entries_[at].key != key && entries_[at].key != kNone) at = (at + 1) & mask_;
    return at;
  }

  std::vector<Entry> entries_;
  size_t mask_;
};

class Bpe {
 public:
  struct Symbol {
    int32_t id;
    uint32_t begin;  // its first byte in the text; for a byte of a character, the character's
  };

  explicit Bpe(BpeModel model);
  Bpe(const Bpe&) = delete;  // ids_ has views of the pieces
  Bpe& operator=(const Bpe&) = delete;

  int32_t size() const { return static_cast<int32_t>(model_.pieces.size()); }
  const std::string& piece(int32_t id) const { return model_.pieces[static_cast<size_t>(id)]; }
  std::optional<int32_t> find(std::string_view piece) const;
  int32_t unk() const { return model_.unk; }
  std::optional<char> byte_of(int32_t id) const;  // the byte that a piece stands for

  // Appends the tokens of `text`, of less than 4 GiB, as one word. Bytes that are not UTF-8 count as U+FFFD. Its
  // time is n log n in the longest stretch that merges may reach over.
  void encode(std::string_view text, std::vector<Symbol>& out) const;

 private:
  int32_t find_character(std::string_view character) const;  // -1: no piece
  int32_t of_byte(char byte) const { return of_byte_[static_cast<unsigned char>(byte)]; }
  void take(std::vector<Symbol>& word, std::vector<Symbol>& out) const;
  void merge_short(std::vector<Symbol>& word) const;
  void merge_long(std::vector<Symbol>& word) const;
  void find_characters();
  void find_joinable();

  BpeModel model_;
  std::unordered_map<std::string_view, int32_t> ids_;
  std::vector<int32_t> of_character_;  // by code point below 65536; -1: no piece
  std::vector<int32_t> of_byte_;       // by <0x00> to <0xFF>; empty where there is an unknown token instead
  PairMap merges_;
  PairMap joinable_;  // symbols of single characters or bytes that some merge can join, each at an edge of its piece
};

}  // namespace mixtune
