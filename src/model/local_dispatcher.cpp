#include "kernels/moe/permute.h"
#include "model/dispatcher.h"
#include "tensor/profiler.h"

namespace mixtune {

namespace {

class LocalDispatcher : public Dispatcher {
 public:
  explicit LocalDispatcher(int64_t experts) : experts_(experts) {}

  DispatchHandle reserve(Ctx& ctx, const Routing& routing) const override {
    const int64_t most = most_rows(routing.experts.elements(), experts_, routing.limit);
    return {.begin = ctx.host_stack.push("expert row begins", {experts_}, DType::kI32),
            .count = ctx.host_stack.push("expert row counts", {experts_}, DType::kI32),
            .row_of_slot = ctx.stack.push("row of slot", routing.experts.shape, DType::kI32),
            .slot_of_row = ctx.stack.push("slot of row", {most}, DType::kI32),
            .row_weights = ctx.stack.push("row weights", {most}, routing.weights.dtype),
            .row_numbers = routing.first_token ? ctx.stack.push("row numbers", {most}, DType::kI64) : Tensor{}};
  }

  void plan(Ctx& ctx, const Routing& routing, DispatchHandle& handle) const override {
    const Range range(ctx, "dispatch, plan");
    handle.rows = permute_map(ctx, {.experts = routing.sent,
                                    .begin = handle.begin,
                                    .count = handle.count,
                                    .row_of_slot = handle.row_of_slot,
                                    .limit = routing.limit});
    handle.slot_of_row = handle.slot_of_row.slice(0, handle.rows);
    handle.row_weights = handle.row_weights.slice(0, handle.rows);
    permute_invert(ctx, handle.row_of_slot, handle.slot_of_row);
    permute_weights(ctx, routing.weights, handle.slot_of_row, handle.row_weights);
    if (!routing.first_token) return;
    handle.row_numbers = handle.row_numbers.slice(0, handle.rows);
    number_rows(ctx, handle.slot_of_row, *routing.first_token * routing.experts.shape[1], handle.row_numbers);
  }

  RowsAgain rows_again(const DispatchHandle&) const override { return RowsAgain::kMoved; }

  Tensor dispatch(Ctx& ctx, const DispatchHandle& handle, const Tensor& x) const override {
    return gather(ctx, handle, x, "expert rows");
  }
  Tensor dispatch_again(Ctx& ctx, const Routing&, DispatchHandle& handle, const Tensor& x) const override {
    return dispatch(ctx, handle, x);
  }

  void combine(Ctx& ctx, const DispatchHandle& handle, const Tensor& rows, const Tensor& residual,
               const Tensor& y) const override {
    const Range range(ctx, "combine");
    unpermute_rows(ctx, rows, handle.row_of_slot, residual, y);
  }

  Tensor combine_backward(Ctx& ctx, const DispatchHandle& handle, const Tensor& dy) const override {
    return gather(ctx, handle, dy, "expert output gradient");
  }

  Returning start_return(Ctx&, const DispatchHandle&, const Tensor& drows, const Tensor& drow_weights) const override {
    return {drows, drow_weights, {}};
  }
  void dispatch_backward(Ctx& ctx, const DispatchHandle& handle, const Returning& returning, const Tensor& dx,
                         const Tensor& dweights) const override {
    const Range range(ctx, "dispatch, backward");
    unpermute_rows(ctx, returning.drows, handle.row_of_slot, {}, dx);
    unpermute_weights(ctx, returning.drow_weights, handle.row_of_slot, dweights);
  }

 private:
  static Tensor gather(Ctx& ctx, const DispatchHandle& handle, const Tensor& x, const char* name) {
    const Range range(ctx, "dispatch");
    const Tensor rows = ctx.stack.push(name, {handle.rows, x.shape[1]}, x.dtype);
    permute_rows(ctx, x, handle.slot_of_row, handle.row_of_slot.shape[1], rows);
    return rows;
  }

  int64_t experts_;
};

}  // namespace

std::unique_ptr<Dispatcher> make_local_dispatcher(int64_t experts) {
  return std::make_unique<LocalDispatcher>(experts);
}

}  // namespace mixtune
