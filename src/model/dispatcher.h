// Dispatcher: brings tokens to the experts they were routed to, and the experts' outputs back.
#pragma once

#include <memory>

#include "kernels/gemm.h"
#include "tensor/ctx.h"

namespace mixtune {

// What the router decided: experts [T, k] int32 (-1: none), weights [T, k].
struct Routing {
  Tensor experts, weights;
};

// What dispatch, combine and their backwards share; its tensors live on the stacks of the reserve() that made it.
struct DispatchHandle {
  Tensor begin, count;  // [E] int32: the rows of each expert here; the host reads them
  Tensor row_of_slot;   // [T, k] int32
  Tensor slot_of_row;   // [R] int32
  Tensor row_weights;   // [R], of the dtype of the routing weights
  int64_t rows = 0;     // R, a multiple of kRowAlignment

  RowGroups groups() const { return {begin.as<int32_t>(), count.as<int32_t>(), count.rows()}; }
};

class Dispatcher {
 public:
  virtual ~Dispatcher() = default;

  // Pushes a handle for `routing`, which need not be known yet.
  virtual DispatchHandle reserve(Ctx& ctx, const Routing& routing) const = 0;
  // Decides which row every (token, slot) goes to.
  virtual void plan(Ctx& ctx, const Routing& routing, DispatchHandle& handle) const = 0;
  // x [T, H] -> rows [R, H], pushed on the stack; gap rows are 0. Backward calls it again for the same x.
  virtual Tensor dispatch(Ctx& ctx, const DispatchHandle& handle, const Tensor& x) const = 0;
  // y [T, H] = residual + the sum of each token's rows, in the order of slots. y may be residual.
  virtual void combine(Ctx& ctx, const DispatchHandle& handle, const Tensor& rows, const Tensor& residual,
                       const Tensor& y) const = 0;
  // dy [T, H] -> the gradient of combine's rows [R, H], pushed on the stack.
  virtual Tensor combine_backward(Ctx& ctx, const DispatchHandle& handle, const Tensor& dy) const = 0;
  // Gradients of dispatch's rows and row weights -> dx [T, H] and dweights [T, k].
  virtual void dispatch_backward(Ctx& ctx, const DispatchHandle& handle, const Tensor& drows,
                                 const Tensor& drow_weights, const Tensor& dx, const Tensor& dweights) const = 0;
};

// All `experts` on this device.
std::unique_ptr<Dispatcher> make_local_dispatcher(int64_t experts);

}  // namespace mixtune
