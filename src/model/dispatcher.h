// Dispatcher: brings tokens to the experts they were routed to, and the experts' outputs back.
#pragma once

#include <memory>
#include <optional>

#include "kernels/gemm/gemm.h"
#include "kernels/moe/permute.h"
#include "parallel/communicator.h"
#include "tensor/ctx.h"

namespace mixtune {

// The router's decision, and what of it is followed.
struct Routing {
  Tensor experts, weights;  // [T, k] int32 (-1: none); [T, k]
  Tensor sent;              // [T, k] int32: experts, -1 where a pair is dropped; the same tensor where none can be
  RowLimit limit = {};      // of what is sent from here to an expert
  // The number of token 0 in the step's global batch, where rows are to have numbers.
  std::optional<int64_t> first_token = {};
};

// The state that dispatch, combine and their backwards share. Its tensors live on the stacks of those that made it.
struct DispatchHandle {
  Tensor begin, count;  // [experts here] int32: the rows of each; the host reads them
  Tensor row_of_slot;   // [T, k] int32; where tokens travel, counts the rows before they do
  Tensor slot_of_row;   // its inverse
  Tensor row_weights;   // [R], of the dtype of the routing weights
  Tensor row_numbers;   // [R] int64: token number * k + slot, any in gap rows; empty without first_token
  int64_t rows = 0;     // R, a multiple of kRowAlignment
  // Used only where tokens travel.
  Tensor sent_begin, sent_count;  // [E] int32: this rank's rows for each expert, before they travel
  Tensor report;                  // [E + 1] int32: sent_count, and the room
  Tensor reports;                 // [ranks, E + 1] int32: every rank's
  int64_t room = 0;               // how many rows there is memory to keep; set before plan
  bool all_have_room = false;     // every rank has room for the rows that come to it
  Tensor kept;                    // [R, H]: the rows, from dispatch to the end of backward; empty: sent once more

  RowGroups groups() const { return {begin.as<int32_t>(), count.as<int32_t>(), count.rows()}; }
};

class Dispatcher {
 public:
  virtual ~Dispatcher() = default;

  // Pushes a handle for `routing`, which need not be known yet.
  virtual DispatchHandle reserve(Ctx& ctx, const Routing& routing) const = 0;
  // Decides which row every (token, slot) goes to.
  virtual void plan(Ctx& ctx, const Routing& routing, DispatchHandle& handle) const = 0;
  // How backward gets the rows: moved again, at little cost; kept, in the handle or in another form, which costs less;
  // or moved again as some rank has no room to keep its rows. All ranks have the same answer.
  enum class RowsAgain { kMoved, kKept, kNoRoom };
  virtual RowsAgain rows_again(const DispatchHandle& handle) const = 0;
  // x [T, H] -> rows [R, H], pushed on the stack or kept; gap rows are 0.
  virtual Tensor dispatch(Ctx& ctx, const DispatchHandle& handle, const Tensor& x) const = 0;
  // Gives backward the same rows, for the same x. Without kept rows, row_weights and row_numbers may be gone from the
  // stack and are pushed there again.
  virtual Tensor dispatch_again(Ctx& ctx, const Routing& routing, DispatchHandle& handle, const Tensor& x) const = 0;
  // y [T, H] = residual + the sum of each token's rows, in the order of slots. y may be residual.
  virtual void combine(Ctx& ctx, const DispatchHandle& handle, const Tensor& rows, const Tensor& residual,
                       const Tensor& y) const = 0;
  // dy [T, H] -> the gradient of combine's rows [R, H], pushed on the stack.
  virtual Tensor combine_backward(Ctx& ctx, const DispatchHandle& handle, const Tensor& dy) const = 0;
  // Gradients of dispatch's rows and row weights on their way back to the tokens, while the ctx does something else.
  // They stay as they are until dispatch_backward, and so does what this pushed on the stack.
  struct Returning {
    Tensor drows, drow_weights;
    LaneMark mark;
  };
  virtual Returning start_return(Ctx& ctx, const DispatchHandle& handle, const Tensor& drows,
                                 const Tensor& drow_weights) const = 0;
  // Writes what returned to dx [T, H] and dweights [T, k].
  virtual void dispatch_backward(Ctx& ctx, const DispatchHandle& handle, const Returning& returning, const Tensor& dx,
                                 const Tensor& dweights) const = 0;
};

// A dispatcher that has all `experts` on this device.
std::unique_ptr<Dispatcher> make_local_dispatcher(int64_t experts);

// A dispatcher of `experts` spread evenly over the ranks of a group, which all call every function together. Tokens
// travel to the experts' ranks with their routing weights and numbers, and the outputs travel back; no row is sent for
// padding. Rows of an expert are in the order of (source rank, token).
std::unique_ptr<Dispatcher> make_exchange_dispatcher(int64_t experts, Communicator& ranks);

}  // namespace mixtune
