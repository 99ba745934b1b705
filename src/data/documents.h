// Documents: the tokenised data set, flat in memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

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

}  // namespace mixtune
