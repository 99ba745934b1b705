#include "kernels/permute.h"

#include "kernels/dispatch.h"
#include "kernels/permute_cpu.h"

namespace mixtune {

int64_t permute_map(Ctx& ctx, const PermuteMap& args) {
  MT_CHECK(ctx.device.type == DeviceType::kCpu);
  return cpu::permute_map(args, kRowAlignment);
}

void permute_invert(Ctx& ctx, const Tensor& row_of_slot, const Tensor& slot_of_row) {
  MT_CHECK(ctx.device.type == DeviceType::kCpu);
  cpu::permute_invert(row_of_slot, slot_of_row);
}

void permute_rows(Ctx& ctx, const Tensor& x, const Tensor& slot_of_row, int64_t k, const Tensor& rows) {
  on_device(ctx, x.dtype, [&]<class S>(S) { cpu::permute_rows<S>(x, slot_of_row, k, rows); });
}

void unpermute_rows(Ctx& ctx, const Tensor& rows, const Tensor& row_of_slot, const Tensor& residual, const Tensor& y) {
  on_device(ctx, rows.dtype, [&]<class S>(S) { cpu::unpermute_rows<S>(rows, row_of_slot, residual, y); });
}

void permute_weights(Ctx& ctx, const Tensor& weights, const Tensor& slot_of_row, const Tensor& row_weights) {
  on_device(ctx, weights.dtype, [&]<class S>(S) { cpu::gather_scalars<S>(weights, slot_of_row, row_weights); });
}

void unpermute_weights(Ctx& ctx, const Tensor& row_weights, const Tensor& row_of_slot, const Tensor& weights) {
  on_device(ctx, weights.dtype, [&]<class S>(S) { cpu::gather_scalars<S>(row_weights, row_of_slot, weights); });
}

}  // namespace mixtune
