// DocumentSink: takes the documents of a data set, one after the other.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <utility>

#include "data/documents.h"

namespace mixtune {

class DocumentSink {
 public:
  virtual ~DocumentSink() = default;

  // Begins the next record with a document. Returns false, and adds no document, for one without a target. A label is
  // its token, which is then trained, or kIgnoreTarget; that of the first token says nothing. Not shifted.
  bool append(std::span<const int32_t> ids, std::span<const int32_t> labels);
  // The same for a further document of the record that was begun last.
  bool append_piece(std::span<const int32_t> ids, std::span<const int32_t> labels);

  // `progress` is called with what was appended, again and again.
  void on_progress(std::function<void(const DocumentTotals&)> progress) { progress_ = std::move(progress); }

  const DocumentTotals& appended() const { return totals_; }
  // Of all that was appended: Documents::digest of what they become.
  uint64_t digest() const;

 private:
  virtual void begin_record() = 0;
  // A document of the record that was begun last, with as many targets.
  virtual void add(std::span<const int32_t> ids, std::span<const int32_t> labels, int64_t targets) = 0;

  DocumentTotals totals_;
  uint64_t digest_ = 0;
  std::function<void(const DocumentTotals&)> progress_;
  int64_t progressed_ = 0;  // tokens
};

}  // namespace mixtune
