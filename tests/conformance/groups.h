// Groups of rows (kernels/gemm/gemm.h) as cases make them.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/gemm/gemm.h"
#include "tensor/device.h"

namespace mixtune {

// Groups of so many rows, each at the next multiple of kRowAlignment, and `trailing` rows behind the last.
class Groups {
 public:
  explicit Groups(std::vector<int32_t> count, int64_t trailing = 0) : count_(std::move(count)) {
    for (const int32_t n : count_) {
      begin_.push_back(static_cast<int32_t>(rows_));
      rows_ += align_rows(n);
    }
    rows_ += trailing;
  }

  operator RowGroups() const { return {begin_.data(), count_.data(), static_cast<int64_t>(count_.size())}; }
  int64_t size() const { return static_cast<int64_t>(count_.size()); }
  int64_t rows() const { return rows_; }
  int64_t largest() const { return *std::max_element(count_.begin(), count_.end()); }

  void zero_gaps(Ctx& ctx, const Tensor& tensor) const {
    for (int64_t e = 0; e <= size(); ++e) {
      const int64_t from = e == 0 ? 0 : begin_[e - 1] + count_[e - 1], to = e < size() ? begin_[e] : rows_;
      if (to > from) zero(ctx, tensor.slice(from, to - from));
    }
  }

 private:
  std::vector<int32_t> begin_, count_;
  int64_t rows_ = 0;
};

}  // namespace mixtune
