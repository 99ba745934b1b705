// Megatron-Core's indexed data set (megatron/core/datasets/indexed_dataset.py), and what mixtune puts beside it: a mask
// where some token is not trained, weights where some trained token has another than 1. Little-endian, nothing aligned:
//
//   PREFIX.idx   9 bytes "MMIDIDX\0\0", u64 version 1, u8 token type, u64 sequences S, u64 document indices D,
//                i32 length of each sequence [S], i64 byte of PREFIX.bin where it begins [S], i64 document index [D]
//   PREFIX.bin   the token ids of all sequences, one after the other
//   PREFIX.mask  8 bytes "MTMASK\0\0", u64 version 1, u64 tokens N, ceil(N / 8) bytes: bit t % 8 (from the lowest) of
//                byte t / 8 is 1 where token t is trained; the bits after the last are 0. Without this file all are.
//                The first token of a sequence counts as trained: in it, nothing predicts that one.
//   PREFIX.weights  8 bytes "MTWEIGHT", u64 version 1, u64 tokens N, f32 weight of each token [N] (data/weights.h): 1
//                where it is not trained. Without this file all are 1.
//
// Document d is the sequences [index[d], index[d + 1]): D is one more than there are documents, the first index is 0,
// the last is S, and a document may be empty. A sequence is what mixtune calls a document, a document a record.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mixtune {

// The type of a token, as the .idx has it; 6 and 7 would be floating point.
enum class TokenType : uint8_t { kU8 = 1, kI8 = 2, kI16 = 3, kI32 = 4, kI64 = 5, kU16 = 8 };

inline constexpr std::string_view kIndexMagic{"MMIDIDX\0\0", 9};
inline constexpr uint64_t kIndexVersion = 1;
inline constexpr uint64_t kIndexHeaderBytes = 34;

inline constexpr std::string_view kMaskMagic{"MTMASK\0\0", 8};
inline constexpr uint64_t kMaskVersion = 1;
inline constexpr uint64_t kMaskHeaderBytes = 24;

inline constexpr std::string_view kWeightsMagic{"MTWEIGHT", 8};
inline constexpr uint64_t kWeightsVersion = 1;
inline constexpr uint64_t kWeightsHeaderBytes = 24;

// The type that Megatron takes for a vocabulary of this size.
constexpr TokenType token_type_for(int64_t vocab_size) {
  return vocab_size < 65500 ? TokenType::kU16 : TokenType::kI32;
}

constexpr int64_t token_bytes(TokenType type) {
  switch (type) {
    case TokenType::kU8:
    case TokenType::kI8:
      return 1;
    case TokenType::kI16:
    case TokenType::kU16:
      return 2;
    case TokenType::kI32:
      return 4;
    case TokenType::kI64:
      return 8;
  }
  return 0;
}

constexpr std::string_view token_type_name(TokenType type) {
  switch (type) {
    case TokenType::kU8:
      return "u8";
    case TokenType::kI8:
      return "i8";
    case TokenType::kI16:
      return "i16";
    case TokenType::kI32:
      return "i32";
    case TokenType::kI64:
      return "i64";
    case TokenType::kU16:
      return "u16";
  }
  return "";
}

struct IndexedPaths {
  explicit IndexedPaths(const std::string& prefix)
      : idx(prefix + ".idx"), bin(prefix + ".bin"), mask(prefix + ".mask"), weights(prefix + ".weights") {}
  std::array<std::string, 4> all() const { return {idx, bin, mask, weights}; }

  std::string idx, bin, mask, weights;
};

// `path` without a ".bin" or ".idx" at its end.
std::string indexed_prefix(std::string_view path);

// The prefix of the data set that `path` names: itself, or its .bin or .idx. None where it has no such ending and is
// a file, or where neither PREFIX.idx nor PREFIX.bin exists.
std::optional<std::string> find_indexed(const std::string& path);

}  // namespace mixtune
