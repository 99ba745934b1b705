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

  // Begins the next record with a document. Returns false, and adds no document, where it has no target. A label is its
  // token, which is then trained, or kIgnoreTarget; the first token's says nothing. Labels are not shifted. Weights are
  // those of the tokens that are trained; empty: all are 1.
  bool append(std::span<const int32_t> ids, std::span<const int32_t> labels, std::span<const float> weights = {});
  // Appends a further document of the record that was begun last.
  bool append_piece(std::span<const int32_t> ids, std::span<const int32_t> labels, std::span<const float> weights = {});

  // Sets a function that is called again and again with the totals so far.
  void on_progress(std::function<void(const DocumentTotals&)> progress) { progress_ = std::move(progress); }

  const DocumentTotals& appended() const { return totals_; }
  // The digest of all that was appended: Documents::digest of what it becomes.
  uint64_t digest() const;

 protected:
  // A document to add to the record that was begun last.
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
  int64_t progressed_ = 0;  // tokens reported
};

// Adds one token to a digest.
struct LabelledToken {
  int32_t id, label;
  float weight = 1;
};
uint64_t add_token(uint64_t digest, const LabelledToken& token);

}  // namespace mixtune
