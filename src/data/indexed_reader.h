// IndexedReader: reads an indexed data set (data/indexed_files.h).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/file.h"
#include "data/bit_set.h"
#include "data/indexed_files.h"

namespace mixtune {

struct IndexedInputs {
  InputFile idx, bin;
  std::optional<InputFile> mask, weights;
};
// Throws UserError where the .idx or the .bin cannot be opened.
IndexedInputs open_indexed(const std::string& prefix);

// The files are read, never mapped. In memory is only what tells a sequence's document: 0.28 bytes for each document of
// one sequence. Any number of threads may call any member at once. Opening reads the whole .idx once (20 bytes a
// sequence) and checks it; the other files are read where they are asked for.
class IndexedReader {
 public:
  // Throws UserError where files are malformed or do not belong together, or ids are no integers.
  IndexedReader(const std::string& prefix, int64_t vocab_size) : IndexedReader(open_indexed(prefix), vocab_size) {}
  IndexedReader(IndexedInputs files, int64_t vocab_size);

  int64_t sequences() const { return sequences_; }
  int64_t documents() const { return documents_; }
  int64_t empty_documents() const { return empty_documents_; }
  int64_t tokens() const { return tokens_; }
  // The least and the most tokens of a sequence; 0 where there is none.
  int64_t min_length() const { return min_length_; }
  int64_t max_length() const { return max_length_; }
  TokenType type() const { return type_; }
  bool has_mask() const { return files_.mask.has_value(); }
  bool has_weights() const { return files_.weights.has_value(); }

  // The lengths of sequences [first, first + lengths.size()), in tokens.
  void lengths(int64_t first, std::span<int32_t> lengths) const;
  int64_t length(int64_t sequence) const;
  // Document d is the sequences [document_begin(d), document_begin(d + 1)), d in [0, documents()].
  int64_t document_begin(int64_t document) const;
  int64_t document_of(int64_t sequence) const;

  // Reads tokens [begin, begin + ids.size()) of a sequence, and their labels: the id where the token is trained, else
  // kIgnoreTarget. `labels` has as many elements as `ids`, or none. Throws UserError for an id outside [0, vocab_size),
  // and Error where a file has changed.
  void read(int64_t sequence, int64_t begin, std::span<int32_t> ids, std::span<int32_t> labels) const;

  // Reads their weights: 0 where one is not trained. Throws UserError for what is no weight, and Error where a file has
  // changed.
  void read_weights(int64_t sequence, int64_t begin, std::span<float> weights) const;

  // The number of tokens before a sequence.
  int64_t token_begin(int64_t sequence) const { return extent(sequence).begin; }
  // Reads bytes [first, first + bytes.size()) of the mask's bits. The data set has_mask().
  void mask_bytes(int64_t first, std::span<uint8_t> bytes) const;

 private:
  struct Extent {
    int64_t begin, length;  // in tokens of the whole data set
  };

  void read_header();
  void check_sequences();
  void check_documents();
  void check_mask() const;
  void check_weights() const;
  Extent extent(int64_t sequence) const;
  void check_still(bool fits) const;
  uint64_t pointer_byte(int64_t sequence) const { return kIndexHeaderBytes + 4u * sequences_ + 8u * sequence; }
  uint64_t document_byte(int64_t document) const { return pointer_byte(sequences_) + 8u * document; }
  template <class Stored>
  void read_ids(int64_t token, std::span<int32_t> ids) const;
  template <class Value>
  void mask(int64_t token, std::span<Value> values, Value untrained) const;

  IndexedInputs files_;
  int64_t vocab_size_;
  TokenType type_{};
  int64_t sequences_ = 0, documents_ = 0, empty_documents_ = 0, tokens_ = 0, min_length_ = 0, max_length_ = 0;
  BitSet sequence_places_;  // documents and sequences in one order, each document before its own; sequences are in it
};

}  // namespace mixtune
