// Documents: the tokenised data set, flat in memory.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "data/tokenizer.h"

namespace mixtune {

// Every document has at least one target: a label after its first that is not kIgnoreTarget. Labels are not shifted.
class Documents {
 public:
  // Begins the next record with a document. Returns false, and adds no document, for one without a target. `labels` has
  // as many entries as `ids`.
  bool append(std::span<const int32_t> ids, std::span<const int32_t> labels);
  // The same for a further document of the record that was begun last.
  bool append_piece(std::span<const int32_t> ids, std::span<const int32_t> labels);

  int64_t size() const { return static_cast<int64_t>(offsets_.size()) - 1; }
  int64_t tokens() const { return offsets_.back(); }
  int64_t targets() const { return targets_; }
  int64_t length(int64_t d) const { return offsets_[d + 1] - offsets_[d]; }
  int64_t max_length() const { return max_length_; }         // 0 where there is no document
  int64_t records() const { return records_; }               // those without a document too
  int64_t record(int64_t d) const { return record_of_[d]; }  // counted from 0

  std::span<const int32_t> ids(int64_t d) const { return {ids_.data() + offsets_[d], static_cast<size_t>(length(d))}; }
  std::span<const int32_t> labels(int64_t d) const {
    return {labels_.data() + offsets_[d], static_cast<size_t>(length(d))};
  }

  bool operator==(const Documents&) const = default;
  // Of all ids, labels, lengths and records: equal for equal documents, most likely different for others.
  uint64_t digest() const;

 private:
  std::vector<int32_t> ids_, labels_;
  std::vector<int64_t> offsets_ = {0};
  std::vector<int64_t> record_of_;
  int64_t records_ = 0;
  int64_t targets_ = 0;
  int64_t max_length_ = 0;
};

// Whether any of `files` holds text rather than token ids (their first records tell, where `format` is kAuto).
bool needs_tokenizer(std::span<const std::string> files, DatasetFormat format);

// Reads, tokenises and cuts the records of `files` as `settings` say (max_seq_length at least 2), and logs one line of
// what it found and one of what it had to cut or drop. `tokenizer` may be null where needs_tokenizer is false. Throws
// UserError, with file and line, for what is malformed or has an id outside [0, vocab_size), and where no target is
// left.
Documents load_documents(std::span<const std::string> files, const DataSettings& settings, const Tokenizer* tokenizer,
                         int64_t vocab_size);

}  // namespace mixtune
