// CPU twins of permute.h.
#pragma once

#include <algorithm>

#include "kernels/moe/permute.h"

namespace mixtune::cpu {

inline void permute_map(const PermuteMap& args, int64_t alignment) {
  const int64_t pairs = args.experts.elements(), experts = args.count.rows();
  const int32_t* expert = args.experts.as<int32_t>();
  int32_t *begin = args.begin.as<int32_t>(), *count = args.count.as<int32_t>();
  std::fill_n(count, experts, 0);
  for (int64_t i = 0; i < pairs; ++i)
    if (expert[i] >= 0) ++count[expert[i]];
  int64_t rows = 0;
  for (int64_t e = 0; e < experts; ++e) {
    const int64_t own = args.limit.padded ? args.limit.most : count[e];
    begin[e] = static_cast<int32_t>(rows);
    rows += (own + alignment - 1) / alignment * alignment;
    count[e] = 0;
  }
  for (int64_t i = 0; i < pairs; ++i)
    args.row_of_slot.as<int32_t>()[i] = expert[i] < 0 ? -1 : begin[expert[i]] + count[expert[i]]++;
  if (args.limit.padded) std::fill_n(count, experts, static_cast<int32_t>(args.limit.most));
}

inline void permute_invert(const Tensor& row_of_slot, const Tensor& slot_of_row) {
  int32_t* slot = slot_of_row.as<int32_t>();
  std::fill_n(slot, slot_of_row.rows(), -1);
  const int32_t* row = row_of_slot.as<int32_t>();
  for (int64_t i = 0; i < row_of_slot.elements(); ++i)
    if (row[i] >= 0) slot[row[i]] = static_cast<int32_t>(i);
}

template <class S>
void permute_rows(const Tensor& x, const Tensor& slot_of_row, int64_t k, const Tensor& rows) {
  const int64_t h = x.shape[1];
#pragma omp parallel for
  for (int64_t r = 0; r < rows.rows(); ++r) {
    const int64_t slot = slot_of_row.as<int32_t>()[r];
    S* out = rows.as<S>() + r * h;
    if (slot < 0)
      std::fill_n(out, h, S(0));
    else
      std::copy_n(x.as<S>() + slot / k * h, h, out);
  }
}

template <class S>
void unpermute_rows(const Tensor& rows, const Tensor& row_of_slot, const Tensor& residual, const Tensor& y) {
  const int64_t tokens = row_of_slot.rows(), k = row_of_slot.shape[1], h = rows.shape[1];
#pragma omp parallel for
  for (int64_t t = 0; t < tokens; ++t) {
    S* out = y.as<S>() + t * h;
    if (!residual)
      std::fill_n(out, h, S(0));
    else if (residual.data != y.data)
      std::copy_n(residual.as<S>() + t * h, h, out);
    for (int64_t slot = 0; slot < k; ++slot) {
      const int64_t row = row_of_slot.as<int32_t>()[t * k + slot];
      if (row < 0) continue;
      const S* in = rows.as<S>() + row * h;
      for (int64_t i = 0; i < h; ++i) out[i] += in[i];
    }
  }
}

inline void number_rows(const Tensor& slot_of_row, int64_t first, const Tensor& numbers) {
  for (int64_t r = 0; r < numbers.rows(); ++r) {
    const int32_t slot = slot_of_row.as<int32_t>()[r];
    numbers.as<int64_t>()[r] = slot < 0 ? -1 : first + slot;
  }
}

// out[i] = in[index[i]], 0 where the index is -1.
template <class S>
void gather_scalars(const Tensor& in, const Tensor& index, const Tensor& out) {
  for (int64_t i = 0; i < index.elements(); ++i) {
    const int32_t j = index.as<int32_t>()[i];
    out.as<S>()[i] = j < 0 ? S(0) : in.as<S>()[j];
  }
}

}  // namespace mixtune::cpu
