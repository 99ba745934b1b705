// ConsoleSink: one readable line a step, for the person who watches, and at the end what they come to.
#pragma once

#include <cstdio>
#include <string>
#include <utility>

#include "metrics/metric_sink.h"
#include "metrics/run_summary.h"

namespace mixtune {

class ConsoleSink : public MetricSink {
 public:
  struct Options {
    int64_t logging_steps = 1;  // lines for its multiples, the first step and the last
    bool terminal = false;      // keep a live line between them
    int columns = 0;            // of the terminal, in which a step's line is made to fit; 0: unlimited
    DeviceScale scale = {};
  };

  ConsoleSink(std::FILE* out, Options options) : out_(out), options_(std::move(options)) {}

  void step(const StepRecord& record) override;
  void evaluation(const EvalRecord& record) override;
  void finish() override;

 private:
  void print(std::string line, bool live);

  std::FILE* out_;
  Options options_;
  RunSummary summary_;
  int64_t total_steps_ = 0;
  double smooth_milliseconds_ = 0;  // of a step, for the ETA
  bool live_ = false;               // the terminal shows a line that is to be replaced
};

// Options for standard output, be it a terminal or not.
ConsoleSink::Options stdout_options(int64_t logging_steps, DeviceScale scale);

}  // namespace mixtune
