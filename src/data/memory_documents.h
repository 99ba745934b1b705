// MemoryDocuments: a data set in memory. Takes 5 bytes a token (9 if weighted) and 16 a document.
#pragma once

#include "data/document_sink.h"
#include "data/documents.h"

namespace mixtune {

class MemoryDocuments : public Documents, public DocumentSink {
 public:
  const DocumentTotals& totals() const override { return appended(); }
  int64_t length(int64_t d) const override { return offsets_[d + 1] - offsets_[d]; }
  using Documents::targets;
  int64_t targets(int64_t d) const override { return targets_[d]; }
  int64_t record(int64_t d) const override { return record_of_[d]; }
  void read(int64_t d, std::span<int32_t> ids, std::span<int32_t> labels) const override;
  void read_weights(int64_t d, std::span<float> weights) const override;
  uint64_t digest() const override { return DocumentSink::digest(); }

 private:
  void begin_record() override {}
  void add(const Added& document) override;

  std::vector<int32_t> ids_;
  std::vector<uint8_t> trained_;
  std::vector<float> weights_;  // empty until one is not 1
  std::vector<int64_t> offsets_ = {0};
  std::vector<uint32_t> targets_, record_of_;
};

}  // namespace mixtune
