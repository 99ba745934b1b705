// Documents: a tokenised data set, wherever it lies.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mixtune {

struct DocumentTotals {
  int64_t documents = 0, tokens = 0, targets = 0;
  int64_t max_length = 0;  // 0 where there is no document
  int64_t records = 0;     // also those without a document
  bool weighted = false;   // a target may have a weight other than 1

  bool operator==(const DocumentTotals&) const = default;
};

// Every document has at least one target: a trained token after its first.
class Documents {
 public:
  virtual ~Documents() = default;

  virtual const DocumentTotals& totals() const = 0;
  int64_t size() const { return totals().documents; }
  int64_t tokens() const { return totals().tokens; }
  int64_t targets() const { return totals().targets; }
  int64_t max_length() const { return totals().max_length; }
  int64_t records() const { return totals().records; }

  // Properties of document d in [0, size()); its tokens are not read. Records count from 0, and do not fall with d.
  virtual int64_t length(int64_t d) const = 0;
  virtual int64_t targets(int64_t d) const = 0;
  virtual int64_t record(int64_t d) const = 0;

  // Reads its ids and labels, length(d) of each. A label is its token, which is then trained, or kIgnoreTarget; the
  // first token's says nothing, as no token predicts it. Labels are not shifted. Allocates nothing. Throws Error where
  // a file cannot be read.
  virtual void read(int64_t d, std::span<int32_t> ids, std::span<int32_t> labels) const = 0;

  // Reads the weight of each of its length(d) tokens (data/weights.h), 0 where one is not trained; the first token's
  // says nothing. Reads no ids. Allocates and throws as read().
  virtual void read_weights(int64_t d, std::span<float> weights) const = 0;

  // A number, the same for the same documents of the same records, wherever they lie; most likely another for others.
  virtual uint64_t digest() const = 0;
};

struct Document {
  std::vector<int32_t> ids, labels;
  std::vector<float> weights;  // as read_weights has them; empty where the data set is not weighted
};
Document read_document(const Documents& documents, int64_t d);

// The weight of all targets of a document, added up in the order of the tokens from what read_weights gave.
double target_weight(std::span<const float> weights);

// Whether the two hold the same documents of the same records: reads both.
bool same_documents(const Documents& a, const Documents& b);

}  // namespace mixtune
