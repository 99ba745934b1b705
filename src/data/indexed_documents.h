// IndexedDocuments: the documents of an indexed data set (data/indexed_files.h), read where they lie.
#pragma once

#include <memory>
#include <vector>

#include "data/documents.h"
#include "data/indexed_reader.h"
#include "data/load_report.h"
#include "data/sequence_fit.h"

namespace mixtune {

// A document is a sequence, or a piece of one: it begins with the last token of the piece before, so that every token
// but the sequence's first is predicted once. A sequence of less than two tokens is none. Memory for a sequence is 2
// bytes, or 4 where one has 2^16 tokens, and 1/4 byte to find records and pieces.
class IndexedDocuments : public Documents {
 public:
  // Reads the lengths, and the mask, if there is one; of the tokens it reads a sample, for the digest. A piece without
  // a target is no document. Throws UserError where a sequence does not fit. `name` is for messages.
  static std::shared_ptr<const Documents> open(IndexedReader reader, const SequenceFit& fit, const std::string& name,
                                               LoadCounts& counts);
  // Opens a data set whose totals are known. All its sequences have a target and are at most fit.max_seq_length long.
  IndexedDocuments(IndexedReader reader, const SequenceFit& fit, const DocumentTotals& totals, uint64_t digest);

  const DocumentTotals& totals() const override { return totals_; }
  int64_t length(int64_t d) const override;
  using Documents::targets;
  int64_t targets(int64_t d) const override;
  int64_t record(int64_t d) const override;
  void read(int64_t d, std::span<int32_t> ids, std::span<int32_t> labels) const override;
  void read_weights(int64_t d, std::span<float> weights) const override;
  uint64_t digest() const override { return digest_; }

 private:
  struct Piece {
    int64_t sequence, begin, length;
  };

  void read_lengths();
  std::vector<int64_t> count(const std::string& name, LoadCounts& counts);
  void sample_digest(int64_t pieces);
  int64_t length_of(int64_t sequence) const {
    return long_lengths_.empty() ? short_lengths_[static_cast<size_t>(sequence)]
                                 : long_lengths_[static_cast<size_t>(sequence)];
  }
  int64_t pieces_of(int64_t length) const;
  Piece piece(int64_t d) const;

  static constexpr int64_t kSample = 64;
  IndexedReader reader_;
  SequenceFit fit_;
  std::vector<uint16_t> short_lengths_;
  std::vector<uint32_t> long_lengths_;
  std::vector<int64_t> sampled_;  // pieces before each kSample-th sequence; empty: each sequence is one
  DocumentTotals totals_;
  uint64_t digest_ = 0;
};

}  // namespace mixtune
