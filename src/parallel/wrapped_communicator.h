// WrappedCommunicator: a communicator with something around every operation.
#pragma once

#include "parallel/communicator.h"

namespace mixtune {

// Stands for a wait for the lane, which has no bytes.
constexpr int64_t kWait = -1;

// around(ctx, what, bytes) returns an object that lives as long as the operation; ctx is null where groups are made.
// `bytes` is what this rank sends to others: the true number for an exchange, the least that they must send for others.
template <class Around>
class WrappedCommunicator final : public Communicator {
 public:
  WrappedCommunicator(std::unique_ptr<Communicator> inner, Around around)
      : Communicator(inner->rank(), inner->size()), inner_(std::move(inner)), around_(std::move(around)) {}

  void exchange(Ctx& ctx, const char* what, std::span<const Message> sends,
                std::span<const Message> receives) override {
    int64_t bytes = 0;
    for (const Message& message : sends)
      if (message.peer != rank()) bytes += static_cast<int64_t>(message.data.bytes());
    const auto inside = around_(&ctx, what, bytes);
    inner_->exchange(ctx, what, sends, receives);
  }
  void all_reduce(Ctx& ctx, const char* what, const Tensor& x) override {
    const auto inside = around_(&ctx, what, 2 * all_but_own(x));
    inner_->all_reduce(ctx, what, x);
  }
  void reduce_scatter(Ctx& ctx, const char* what, const Tensor& x) override {
    const auto inside = around_(&ctx, what, all_but_own(x));
    inner_->reduce_scatter(ctx, what, x);
  }
  void all_gather(Ctx& ctx, const char* what, const Tensor& x) override {
    const auto inside = around_(&ctx, what, all_but_own(x));
    inner_->all_gather(ctx, what, x);
  }
  void wait(Ctx& ctx, const char* what, LaneMark mark) override {
    const auto inside = around_(&ctx, what, kWait);
    inner_->wait(ctx, what, mark);
  }
  std::unique_ptr<Communicator> split(int color) override;

 private:
  int64_t all_but_own(const Tensor& x) const { return static_cast<int64_t>(x.bytes()) * (size() - 1) / size(); }

  std::unique_ptr<Communicator> inner_;
  Around around_;
};

// Wraps `communicator`, and what is split from it. A group of one is not wrapped.
template <class Around>
std::unique_ptr<Communicator> wrap_communicator(std::unique_ptr<Communicator> communicator, Around around) {
  if (communicator->size() == 1) return communicator;
  return std::make_unique<WrappedCommunicator<Around>>(std::move(communicator), std::move(around));
}

template <class Around>
std::unique_ptr<Communicator> WrappedCommunicator<Around>::split(int color) {
  const auto inside = around_(nullptr, "making of groups", 0);
  return wrap_communicator(inner_->split(color), around_);
}

}  // namespace mixtune
