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
  // its token, which is then trained, or kIgnoreTarget; that of the first token says nothing. Not shifted. Weights are
  // those of the tokens that are trained, or empty: all are 1.
  bool append(std::span<const int32_t> ids, std::span<const int32_t> labels, std::span<const float> weights = {});
  // The same for a further document of the record that was begun last.
  bool append_piece(std::span<const int32_t> ids, std::span<const int32_t> labels, std::span<const float> weights = {});

  // `progress` is called with what was appended, again and again.
  void on_progress(std::function<void(const DocumentTotals&)> progress) { progress_ = std::move(progress); }

  const DocumentTotals& appended() const { return totals_; }
  // Of all that was appended: Documents::digest of what they become.
  uint64_t digest() const;

 protected:
  // A document of the record that was begun last.
  struct Added {
    std::span<const int32_t> ids, labels;
    std::span<const float> weights;  // empty where each target's is 1
    int64_t targets;
  };

 private:
  virtual void begin_record() = 0;
  virtual void add(const Added& document) = 0;

  DocumentTotals totals_;
  uint64_t digest_ = 0;
  std::function<void(const DocumentTotals&)> progress_;
  int64_t progressed_ = 0;  // tokens
};

// The digest of tokens, with one more.
uint64_t add_token(uint64_t digest, int32_t id, int32_t label, float weight);

}  // namespace mixtune
