// PackedRows: the documents of a data set as rows that a plan packs.
#pragma once

#include <span>
#include <vector>

#include "data/documents.h"
#include "data/plan.h"
#include "data/row_source.h"

namespace mixtune {

class PackedRows : public RowSource {
 public:
  // `documents` outlives this and is not empty. Throws as RowSequence does.
  PackedRows(const Documents& documents, const PlanOptions& options);

  int64_t rows() const override { return rows_.rows(); }
  int64_t max_tokens() const override { return max_tokens_; }
  int64_t max_documents() const override { return max_documents_; }
  bool weighted() const override { return documents_.totals().weighted; }
  double epochs_done(int64_t count) override { return rows_.epochs_done(count); }
  RowCounts count(int64_t row) override;
  RowCounts read(int64_t row, const RowRoom& room) override;

 private:
  // Counts document d. `weights` are its tokens', where the data is weighted.
  void add(int64_t d, int64_t targets, std::span<const float> weights, RowCounts& counts) const;

  const Documents& documents_;
  RowSequence rows_;
  int64_t max_tokens_, max_documents_;
  std::vector<float> weights_;  // of a document that is counted
};

}  // namespace mixtune
