// Throughput: how fast a run's steps are, against what the device could do.
#pragma once

#include <string>

#include "data/loader.h"
#include "metrics/metric_sink.h"
#include "model/instance.h"
#include "model/operations.h"

namespace mixtune {

// What MFU is a share of: TFLOP/s of one device; 0: not known, as of a CPU and of products in fp32.
struct Peak {
  double tflops = 0;
  std::string name = {};  // "1,979 TFLOP/s, fp8 dense, H200"
};
// Of the GPU of this name (GpuInfo::name). Where the layers' products multiply codes of 8 bits, that of fp8, though
// attention and the head run in bf16; where operands are only rounded, that of bf16, in which these are multiplied.
Peak peak_of(const std::string& gpu, const InstanceOptions& options);

class Throughput {
 public:
  // Of the training of the instance on all of its ranks; they are held against the peak of this rank's device.
  explicit Throughput(const Instance& instance);

  const Peak& peak() const { return peak_; }

  // Sets what the record has of time: that of the step alone, with no evaluation or checkpoint after it. The tokens are
  // those of the step's documents, without what fills up a batch.
  void set(StepRecord& record, const Step& rows, double seconds) const;

 private:
  ModelOperations operations_;
  double devices_;
  Peak peak_;
};

}  // namespace mixtune
