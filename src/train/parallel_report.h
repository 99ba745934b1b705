// ParallelReport: what ranks tell each other of a step, for its record.
#pragma once

#include "metrics/metric_sink.h"
#include "model/instance.h"
#include "train/scalars.h"

namespace mixtune {

class ParallelReport {
 public:
  // `instance` has several ranks, and outlives this.
  explicit ParallelReport(Instance& instance);
  ~ParallelReport() { instance_.ranks().traffic->forget_ctx(); }
  ParallelReport(const ParallelReport&) = delete;
  ParallelReport& operator=(const ParallelReport&) = delete;

  // Of a step, and of each of its micro-batches before its forward_backward.
  void begin();
  void add(const Batch& batch) { tokens_ += batch.live_tokens; }
  // At the end of the step, when the host has waited for the device. All ranks call this: a small all-gather, and one
  // more wait. Valid until the next read.
  const ParallelRecord& read();

 private:
  Instance& instance_;
  int64_t tokens_ = 0;  // of this rank
  Arena arena_;         // host memory
  Tensor own_;          // this rank's numbers
  Scalars all_;         // those of all ranks
  ParallelRecord record_;
};

}  // namespace mixtune
