// JoinedDocuments: several data sets as one, one after the other.
#pragma once

#include <memory>
#include <vector>

#include "data/documents.h"

namespace mixtune {

class JoinedDocuments : public Documents {
 public:
  // Joins at least one part. Their records are numbered on.
  explicit JoinedDocuments(std::vector<std::shared_ptr<const Documents>> parts);

  const DocumentTotals& totals() const override { return totals_; }
  int64_t length(int64_t d) const override;
  using Documents::targets;
  int64_t targets(int64_t d) const override;
  int64_t record(int64_t d) const override;
  void read(int64_t d, std::span<int32_t> ids, std::span<int32_t> labels) const override;
  void read_weights(int64_t d, std::span<float> weights) const override;
  uint64_t digest() const override;

 private:
  struct FieldPlace {
    const Documents& documents;
    int64_t d;
    int64_t records_before;
  };
  FieldPlace place(int64_t d) const;

  std::vector<std::shared_ptr<const Documents>> parts_;
  std::vector<int64_t> begins_, records_before_;  // of each part
  DocumentTotals totals_;
};

}  // namespace mixtune
