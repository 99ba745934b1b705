// IndexedWriter: writes an indexed data set (data/indexed_files.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/output_file.h"
#include "base/staged.h"
#include "data/indexed_files.h"

namespace mixtune {

// Appends sequences and ends documents; its memory does not grow with them. The files appear in finish(), the .idx
// last, so that a kill at any instant leaves the whole data set or none that can be read.
class IndexedWriter {
 public:
  // The files are PREFIX.idx and .bin; .mask, where some token is not trained; .weights, where a trained one has a
  // weight other than 1. Throws UserError where one of them exists, unless it may be replaced.
  IndexedWriter(const std::string& prefix, int64_t vocab_size, Existing existing);

  // Appends a sequence to the document that has not ended yet: ids in [0, vocab_size), and as many labels, each the id
  // of its token, or kIgnoreTarget where that is not trained; the first says nothing, as it is never a target. Weights
  // (data/weights.h) are those of the tokens that are trained; empty: all are 1. Throws UserError for another label.
  void append(std::span<const int32_t> ids, std::span<const int32_t> labels, std::span<const float> weights = {});
  // Ends the document; it is empty without a sequence since the last call.
  void end_document();
  // Finishes the files. All sequences are in documents that ended.
  void finish();

 private:
  // A file under a temporary name, written through a buffer.
  class Part {
   public:
    explicit Part(const std::string& path) : staged_(path), file_(staged_.path()) {}

    void write(std::span<const std::byte> bytes);
    void flush();
    void finish();                   // puts all of it on the disk
    void commit(Existing existing);  // gives it its name
    const std::string& path() { return file_.path(); }

   private:
    StagedPath staged_;
    OutputFile file_;
    std::vector<std::byte> buffer_;
  };

  void write_ids(std::span<const int32_t> ids);
  void write_mask(std::span<const int32_t> ids, std::span<const int32_t> labels);
  void write_weights(std::span<const int32_t> labels, std::span<const float> weights);
  void copy_to(Part& to, Part& from);
  void write_mask_file(Part& mask);
  void write_weights_file(Part& weights);
  void write_idx(Part& idx);
  void write_pointers(Part& idx);

  std::string prefix_;
  IndexedPaths paths_;
  Existing existing_;
  int64_t vocab_size_;
  TokenType type_;
  Part bin_;
  // Parts of the .idx and the .mask, until the numbers in their headers are known.
  Part lengths_, document_indices_, mask_bits_;
  std::optional<Part> weights_;  // the .weights' part, once a weight is not 1
  int64_t sequences_ = 0, documents_ = 0, tokens_ = 0;
  int64_t ended_sequences_ = 0;  // those in documents that ended
  bool all_trained_ = true;
  uint8_t mask_byte_ = 0;  // the bits of the last tokens_ % 8 tokens
};

}  // namespace mixtune
