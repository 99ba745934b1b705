// DocumentsPart: some of the documents of a data set, in their order and under their records' numbers.
#pragma once

#include <memory>
#include <vector>

#include "data/documents.h"

namespace mixtune {

// Which of a number of documents: 1.125 bits for each of all.
class DocumentSet {
 public:
  explicit DocumentSet(int64_t documents) : words_(static_cast<size_t>(documents + 63) / 64) {}

  void insert(int64_t d) { words_[static_cast<size_t>(d / 64)] |= uint64_t{1} << (d % 64); }
  void remove(int64_t d) { words_[static_cast<size_t>(d / 64)] &= ~(uint64_t{1} << (d % 64)); }
  bool contains(int64_t d) const { return words_[static_cast<size_t>(d / 64)] >> (d % 64) & 1; }
  void index();                     // after the last insert, before what follows
  int64_t select(int64_t i) const;  // the i-th that is contained
  uint64_t digest() const;

 private:
  static constexpr size_t kBlock = 8;  // words
  std::vector<uint64_t> words_;
  std::vector<int64_t> before_;  // how many there are before each block
};

class DocumentsPart : public Documents {
 public:
  // `totals`: of what is in the set; its records are those of the whole.
  DocumentsPart(std::shared_ptr<const Documents> all, DocumentSet set, const DocumentTotals& totals);

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
  DocumentSet set_;
  DocumentTotals totals_;
};

}  // namespace mixtune
