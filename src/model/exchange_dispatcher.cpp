// Sorts rows by expert as the local dispatcher does. Each expert's rows go, without the gaps between them, straight to
// their place at the rank that holds it.
#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/moe/permute.h"
#include "model/dispatcher.h"
#include "tensor/profiler.h"

namespace mixtune {

namespace {

class ExchangeDispatcher : public Dispatcher {
 public:
  ExchangeDispatcher(int64_t experts, Communicator& ranks)
      : experts_(experts), here_(experts / ranks.size()), ranks_(ranks) {
    MT_CHECK(here_ * ranks.size() == experts);
    there_.reserve(experts);
    came_.reserve(experts);
  }

  DispatchHandle reserve(Ctx& ctx, const Routing& routing) const override {
    const int64_t most = most_rows(routing.experts.elements(), experts_, routing.limit);
    const auto counts = [&](const char* name, Shape shape) {
      return ctx.host_stack.push(name, shape, DType::kI32);
    };
    const Tensor report = counts("sent row counts and room", {experts_ + 1});
    return {.begin = counts("expert row begins", {here_}),
            .count = counts("expert row counts", {here_}),
            .row_of_slot = ctx.stack.push("row of slot", routing.experts.shape, DType::kI32),
            .slot_of_row = ctx.stack.push("slot of row", {most}, DType::kI32),
            .sent_begin = counts("sent row begins", {experts_}),
            .sent_count = report.slice(0, experts_),
            .report = report,
            .reports = counts("row counts of all ranks", {ranks_.size(), experts_ + 1})};
  }

  void plan(Ctx& ctx, const Routing& routing, DispatchHandle& handle) const override {
    const Range range(ctx, "dispatch, plan");
    const PermuteMap map = {.experts = routing.sent,
                            .begin = handle.sent_begin,
                            .count = handle.sent_count,
                            .row_of_slot = handle.row_of_slot,
                            .limit = routing.limit};
    start_permute_map(ctx, map);
    gather_reports(ctx, handle);
    wait(ctx);
    handle.slot_of_row = handle.slot_of_row.slice(0, mapped_rows(map));
    permute_invert(ctx, handle.row_of_slot, handle.slot_of_row);
    place_rows(ctx, routing.limit, handle);
    handle.all_have_room = ctx.is_meta() ? handle.rows <= handle.room : all_have_room(handle);
    send_scalars(ctx, routing, handle);
  }

  RowsAgain rows_again(const DispatchHandle& handle) const override {
    return handle.all_have_room ? RowsAgain::kKept : RowsAgain::kNoRoom;
  }

  Tensor dispatch(Ctx& ctx, const DispatchHandle& handle, const Tensor& x) const override {
    const Range range(ctx, "dispatch");
    return send_tokens(ctx, "tokens to experts", handle, x, handle.kept);
  }
  Tensor dispatch_again(Ctx& ctx, const Routing& routing, DispatchHandle& handle, const Tensor& x) const override {
    if (handle.kept) return handle.kept;
    send_scalars(ctx, routing, handle);
    return dispatch(ctx, handle, x);
  }

  void combine(Ctx& ctx, const DispatchHandle& handle, const Tensor& rows, const Tensor& residual,
               const Tensor& y) const override {
    const Range range(ctx, "combine");
    const Frame frame(ctx);
    unpermute_rows(ctx, bring_back(ctx, "expert outputs", handle, rows), handle.row_of_slot, residual, y);
  }

  Tensor combine_backward(Ctx& ctx, const DispatchHandle& handle, const Tensor& dy) const override {
    const Range range(ctx, "combine, backward");
    return send_tokens(ctx, "gradients of expert outputs", handle, dy, {});
  }

  Returning start_return(Ctx& ctx, const DispatchHandle& handle, const Tensor& drows,
                         const Tensor& drow_weights) const override {
    const InLane lane(ctx);
    return {bring_back(ctx, "gradients of tokens", handle, drows),
            bring_back(ctx, "gradients of routing weights", handle, drow_weights), mark_lane(ctx)};
  }
  void dispatch_backward(Ctx& ctx, const DispatchHandle& handle, const Returning& returning, const Tensor& dx,
                         const Tensor& dweights) const override {
    const Range range(ctx, "dispatch, backward");
    ranks_.wait(ctx, "gradients of tokens", returning.mark);
    unpermute_rows(ctx, returning.drows, handle.row_of_slot, {}, dx);
    unpermute_weights(ctx, returning.drow_weights, handle.row_of_slot, dweights);
  }

 private:
  using Message = Communicator::Message;

  const int32_t* counts_of(const DispatchHandle& handle, int64_t rank) const {
    return handle.reports.row(rank).as<int32_t>() + ranks_.rank() * here_;  // those for the experts here
  }

  // Gathers the ranks' reports: there once the host has waited.
  void gather_reports(Ctx& ctx, const DispatchHandle& handle) const {
    const Stack::Frame frame(ctx.stack);
    const Tensor reports = ctx.stack.push("row counts of all ranks", handle.reports.shape, DType::kI32);
    // The host may write here: what last read it was waited for in its plan.
    handle.report.as<int32_t>()[experts_] =
        static_cast<int32_t>(std::min<int64_t>(handle.room, std::numeric_limits<int32_t>::max()));
    copy(ctx, handle.report, reports.row(ranks_.rank()));
    ranks_.all_gather(ctx, "row counts", reports);
    copy(ctx, reports, handle.reports);
  }

  // Gives the same answer on every rank of the group.
  bool all_have_room(const DispatchHandle& handle) const {
    for (int64_t rank = 0; rank < ranks_.size(); ++rank) {
      int64_t rows = 0;
      for (int64_t e = rank * here_; e < (rank + 1) * here_; ++e) {
        int64_t count = 0;
        for (int64_t source = 0; source < ranks_.size(); ++source) count += handle.reports.row(source).as<int32_t>()[e];
        rows += align_rows(count);
      }
      if (rows > handle.reports.row(rank).as<int32_t>()[experts_]) return false;
    }
    return true;
  }

  // Computes where the rows of each expert here will be, and how many there are.
  void place_rows(const Ctx& ctx, const RowLimit& sent, DispatchHandle& handle) const {
    if (ctx.is_meta()) {  // at worst, every token of all ranks comes to as many experts here as it may
      const int64_t tokens = handle.row_of_slot.rows(), k = handle.row_of_slot.shape[1];
      const auto most = static_cast<double>(tokens * ranks_.size() * std::min(k, here_));
      const auto pairs = static_cast<int64_t>(std::min(most, ctx.routing_share * static_cast<double>(tokens * k)));
      const RowLimit limit = {.most = sent.most * ranks_.size(), .padded = sent.padded};
      handle.rows = suppose_rows(ctx, pairs, handle.begin, handle.count, limit);
      return;
    }
    handle.rows = 0;
    for (int64_t e = 0; e < here_; ++e) {
      int64_t count = 0;
      for (int64_t rank = 0; rank < ranks_.size(); ++rank) count += counts_of(handle, rank)[e];
      handle.begin.as<int32_t>()[e] = static_cast<int32_t>(handle.rows);
      handle.count.as<int32_t>()[e] = static_cast<int32_t>(count);
      handle.rows += align_rows(count);
    }
  }

  // Lists the pieces of `sent` that go to each rank, and those of `received` that come from each.
  void list_messages(const DispatchHandle& handle, const Tensor& sent, const Tensor& received) const {
    there_.clear();
    came_.clear();
    for (int rank = 0; rank < ranks_.size(); ++rank)
      for (int64_t e = rank * here_; e < (rank + 1) * here_; ++e)
        there_.push_back({rank, sent.slice(handle.sent_begin.as<int32_t>()[e], handle.sent_count.as<int32_t>()[e])});
    for (int64_t e = 0; e < here_; ++e) {
      int64_t row = handle.begin.as<int32_t>()[e];
      for (int rank = 0; rank < ranks_.size(); ++rank) {
        const int64_t count = counts_of(handle, rank)[e];
        came_.push_back({rank, received.slice(row, count)});
        row += count;
      }
    }
  }

  // Sends rows to the ranks of their experts: `received` gets the rows of the experts here, its gaps 0.
  void send(Ctx& ctx, const char* what, const DispatchHandle& handle, const Tensor& sent,
            const Tensor& received) const {
    if (ctx.is_meta()) return;
    list_messages(handle, sent, received);
    ranks_.exchange(ctx, what, there_, came_);
    for (int64_t e = 0; e < here_; ++e) {
      const int64_t count = handle.count.as<int32_t>()[e], end = handle.begin.as<int32_t>()[e] + count;
      if (const int64_t gap = align_rows(count) - count; gap > 0) zero(ctx, received.slice(end, gap));
    }
  }

  // Sends what belongs to the rows, besides themselves.
  void send_scalars(Ctx& ctx, const Routing& routing, DispatchHandle& handle) const {
    send_weights(ctx, routing, handle);
    if (routing.first_token) send_numbers(ctx, routing, handle);
  }

  void send_weights(Ctx& ctx, const Routing& routing, DispatchHandle& handle) const {
    handle.row_weights = ctx.stack.push("row weights", {handle.rows}, routing.weights.dtype);
    const Frame frame(ctx);
    const Tensor sent = ctx.stack.push("sent row weights", {handle.slot_of_row.rows()}, routing.weights.dtype);
    permute_weights(ctx, routing.weights, handle.slot_of_row, sent);
    send(ctx, "routing weights", handle, sent, handle.row_weights);
  }

  void send_numbers(Ctx& ctx, const Routing& routing, DispatchHandle& handle) const {
    handle.row_numbers = ctx.stack.push("row numbers", {handle.rows}, DType::kI64);
    const Frame frame(ctx);
    const Tensor sent = ctx.stack.push("sent row numbers", {handle.slot_of_row.rows()}, DType::kI64);
    number_rows(ctx, handle.slot_of_row, *routing.first_token * routing.experts.shape[1], sent);
    send(ctx, "row numbers", handle, sent, handle.row_numbers);
  }

  // Sends the tokens' rows of x [T, H] to their experts. Returns rows [R, H], in `to` or pushed on the stack.
  Tensor send_tokens(Ctx& ctx, const char* what, const DispatchHandle& handle, const Tensor& x, Tensor to) const {
    if (!to) to = ctx.stack.push("expert rows", {handle.rows, x.shape[1]}, x.dtype);
    const Frame frame(ctx);
    const Tensor sent = ctx.stack.push("sent rows", {handle.slot_of_row.rows(), x.shape[1]}, x.dtype);
    permute_rows(ctx, x, handle.slot_of_row, handle.row_of_slot.shape[1], sent);
    send(ctx, what, handle, sent, to);
    return to;
  }

  // Brings rows of the experts here (or scalars of them) back. Returns those that this rank sent, pushed on the stack.
  Tensor bring_back(Ctx& ctx, const char* what, const DispatchHandle& handle, const Tensor& rows) const {
    const int64_t sent = handle.slot_of_row.rows();
    const Tensor back =
        ctx.stack.push("returned rows", rows.shape.rank() == 1 ? Shape{sent} : Shape{sent, rows.shape[1]}, rows.dtype);
    if (ctx.is_meta()) return back;
    list_messages(handle, back, rows);
    ranks_.exchange(ctx, what, came_, there_);
    return back;
  }

  int64_t experts_, here_;
  Communicator& ranks_;
  mutable std::vector<Message> there_, came_;  // members, so that a step allocates nothing
};

}  // namespace

std::unique_ptr<Dispatcher> make_exchange_dispatcher(int64_t experts, Communicator& ranks) {
  return std::make_unique<ExchangeDispatcher>(experts, ranks);
}

}  // namespace mixtune
