// DocumentsPart: some of the documents of a data set, in their order and under their records' numbers.
#pragma once

#include <memory>

#include "data/bit_set.h"
#include "data/documents.h"

namespace mixtune {

class DocumentsPart : public Documents {
 public:
  // `totals` are those of the documents in the set, but its records are those of the whole.
  DocumentsPart(std::shared_ptr<const Documents> all, BitSet set, const DocumentTotals& totals);

  const DocumentTotals& totals() const override { return totals_; }
  int64_t length(int64_t d) const override { return all_->length(set_.select(d)); }
  using Documents::targets;
  int64_t targets(int64_t d) const override { return all_->targets(set_.select(d)); }
  int64_t record(int64_t d) const override { return all_->record(set_.select(d)); }
  void read(int64_t d, std::span<int32_t> ids, std::span<int32_t> labels) const override {
    all_->read(set_.select(d), ids, labels);
  }
  void read_weights(int64_t d, std::span<float> weights) const override { all_->read_weights(set_.select(d), weights); }
  uint64_t digest() const override;

 private:
  std::shared_ptr<const Documents> all_;
  BitSet set_;
  DocumentTotals totals_;
};

}  // namespace mixtune
