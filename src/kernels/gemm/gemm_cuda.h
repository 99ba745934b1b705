// What products of groups of rows on a GPU share, whatever their operands are.
#pragma once

#include "kernels/gemm/gemm.h"
#include "kernels/gemm/gemm_plans.h"

namespace mixtune::cuda {

char* address(const Tensor& tensor, int64_t element);

// Demands what gemm.h says of groups of `rows` rows.
void check_groups(const RowGroups& groups, int64_t rows);

// Zeroes the rows of y that no product writes: those between the whole multiples of kRowAlignment that groups take.
void zero_between(Ctx& ctx, const RowGroups& groups, const Tensor& y);

}  // namespace mixtune::cuda
