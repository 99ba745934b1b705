#include "tensor/nvtx.h"

#include <nvtx3/nvToolsExt.h>

#include "tensor/gpu.h"

namespace mixtune::cuda {

void push_range(const char* name) {
  nvtxRangePushA(name);
}

void pop_range() {
  nvtxRangePop();
}

namespace {

class EventClock : public StampClock {
 public:
  explicit EventClock(Gpu& gpu) : gpu_(gpu) {}

  int stamp() override {
    if (used_ == events_.size()) events_.push_back(make_event(true));
    check_cuda(cudaEventRecord(events_[used_].handle, gpu_.stream()), "time stamp");
    return static_cast<int>(used_++);
  }
  double milliseconds(int from, int to) override {
    float ms = 0;
    check_cuda(cudaEventElapsedTime(&ms, events_[from].handle, events_[to].handle), "time stamp");
    return ms;
  }
  bool is_past(int stamp) override { return cudaEventQuery(events_[stamp].handle) == cudaSuccess; }
  void reset() override { used_ = 0; }

 private:
  Gpu& gpu_;
  std::vector<CudaEvent> events_;
  size_t used_ = 0;
};

}  // namespace

std::unique_ptr<StampClock> make_stamp_clock(Gpu& gpu) {
  return std::make_unique<EventClock>(gpu);
}

}  // namespace mixtune::cuda
