// Gpu: what the ops of one CUDA device share: streams, an event, scratch, and the libraries' handles and plans.
// Only CUDA sources include this; everything else sees `class Gpu;` (ctx.h) and device.h.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <memory>
#include <string>
#include <utility>

#include "tensor/device.h"
#include "tensor/memory.h"

namespace mixtune {

// Throws Error (where: `what`) for a CUDA call that failed. After a launch: check_cuda(cudaGetLastError(), "x_kernel").
void check_cuda(cudaError_t status, const char* what);

// A stream or an event, owned.
template <class T, cudaError_t (*Destroy)(T)>
struct CudaHandle {
  T handle = nullptr;
  CudaHandle() = default;
  CudaHandle(CudaHandle&& other) noexcept : handle(std::exchange(other.handle, nullptr)) {}
  CudaHandle& operator=(CudaHandle&& other) noexcept {
    std::swap(handle, other.handle);
    return *this;
  }
  ~CudaHandle() {
    if (handle) Destroy(handle);
  }
};
using CudaStream = CudaHandle<cudaStream_t, cudaStreamDestroy>;
using CudaEvent = CudaHandle<cudaEvent_t, cudaEventDestroy>;
CudaStream make_stream(bool urgent = false);  // urgent: its kernels start before those of others
CudaEvent make_event(bool timing = false);

// What a library keeps for this device: its handle, its plans. Derived classes have `static constexpr GpuSlot kSlot`
// and a constructor that takes the Gpu&.
enum class GpuSlot { kGemm, kAttention, kCount };
class GpuPart {
 public:
  virtual ~GpuPart() = default;
};

class Gpu {
 public:
  Gpu(Device device, const GpuOptions& options);

  Device device() const { return device_; }
  const GpuOptions& options() const { return options_; }
  int multiprocessors() const { return multiprocessors_; }
  int compute_capability() const { return compute_capability_; }  // 90 on Hopper

  // An op finds its inputs, and leaves its results, ready in this stream's order. An op that uses other streams forks
  // and joins.
  cudaStream_t stream() const { return current_; }
  static constexpr int kSideStreams = 4;
  cudaStream_t side_stream(int i) const { return side_[i].stream.handle; }
  void fork(int side_streams);  // side streams [0, n) wait for what stream() holds now
  void join(int side_streams);  // stream() waits for what side streams [0, n) hold now

  // Between enter and leave, stream() gives the lane (lane.h).
  bool in_lane() const { return current_ == lane_.handle; }
  void enter_lane();
  void leave_lane();
  int64_t mark_lane();
  void wait_for_lane(int64_t mark);

  // Scratch for a library's kernels on stream() (i = -1) or on side_stream(i).
  static constexpr size_t kWorkspaceBytes = 32 << 20;
  void* workspace(int i = -1) const { return workspace_.data() + static_cast<size_t>(i + 1) * kWorkspaceBytes; }

  // The host waits for all that stream() holds now, or for an event: no longer than GpuOptions.patience.
  void wait();
  void wait_for(cudaEvent_t event) const;
  int64_t waits() const { return waits_; }  // how often wait() was called

  // Plans (algorithms, library plans) are built in warm-up; one built later is counted, for the soak test.
  bool warming_up() const { return warming_up_; }
  void finish_warm_up() { warming_up_ = false; }
  void count_plan() { late_plans_ += !warming_up_; }
  int64_t late_plans() const { return late_plans_; }

  template <class Part>
  Part& part() {
    auto& slot = parts_[static_cast<size_t>(Part::kSlot)];
    if (!slot) slot = std::make_unique<Part>(*this);
    return static_cast<Part&>(*slot);
  }

 private:
  struct Side {
    CudaStream stream;
    CudaEvent done;
  };

  Device device_;
  GpuOptions options_;
  int multiprocessors_ = 0, compute_capability_ = 0;
  CudaStream stream_, lane_;
  cudaStream_t current_ = nullptr;
  CudaEvent forked_, waited_, laned_;
  // The kMarks marks that were set last: mark m at m % kMarks. An older mark stands for a later one.
  static constexpr int64_t kMarks = 64;
  std::array<CudaEvent, kMarks> marks_;
  int64_t last_mark_ = 0, awaited_mark_ = 0;
  std::array<Side, kSideStreams> side_;
  Memory workspace_;
  int64_t waits_ = 0, late_plans_ = 0;
  bool warming_up_ = true;
  std::array<std::unique_ptr<GpuPart>, static_cast<size_t>(GpuSlot::kCount)> parts_;
};

}  // namespace mixtune
