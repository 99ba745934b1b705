#include "kernels/permute.h"
#include "model/dispatcher.h"

namespace mixtune {

namespace {

class LocalDispatcher : public Dispatcher {
 public:
  explicit LocalDispatcher(int64_t experts) : experts_(experts) {}

  DispatchHandle plan(Ctx& ctx, const Routing& routing) const override {
    DispatchHandle handle;
    handle.begin = ctx.stack.push("expert row begins", {experts_}, DType::kI32);
    handle.count = ctx.stack.push("expert row counts", {experts_}, DType::kI32);
    handle.row_of_slot = ctx.stack.push("row of slot", routing.experts.shape, DType::kI32);
    handle.rows = permute_map(
        ctx,
        {.experts = routing.experts, .begin = handle.begin, .count = handle.count, .row_of_slot = handle.row_of_slot});
    handle.slot_of_row = ctx.stack.push("slot of row", {handle.rows}, DType::kI32);
    permute_invert(ctx, handle.row_of_slot, handle.slot_of_row);
    handle.row_weights = ctx.stack.push("row weights", {handle.rows}, routing.weights.dtype);
    permute_weights(ctx, routing.weights, handle.slot_of_row, handle.row_weights);
    return handle;
  }

  Tensor dispatch(Ctx& ctx, const DispatchHandle& handle, const Tensor& x) const override {
    return gather(ctx, handle, x, "expert rows");
  }

  void combine(Ctx& ctx, const DispatchHandle& handle, const Tensor& rows, const Tensor& residual,
               const Tensor& y) const override {
    unpermute_rows(ctx, rows, handle.row_of_slot, residual, y);
  }

  Tensor combine_backward(Ctx& ctx, const DispatchHandle& handle, const Tensor& dy) const override {
    return gather(ctx, handle, dy, "expert output gradient");
  }

  void dispatch_backward(Ctx& ctx, const DispatchHandle& handle, const Tensor& drows, const Tensor& drow_weights,
                         const Tensor& dx, const Tensor& dweights) const override {
    unpermute_rows(ctx, drows, handle.row_of_slot, {}, dx);
    unpermute_weights(ctx, drow_weights, handle.row_of_slot, dweights);
  }

 private:
  static Tensor gather(Ctx& ctx, const DispatchHandle& handle, const Tensor& x, const char* name) {
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
