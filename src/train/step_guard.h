// StepGuard: what becomes of a run after a step whose numbers are bad. All ranks see the same numbers and decide alike.
#pragma once

#include "metrics/metric_sink.h"
#include "metrics/watchdog.h"
#include "run/manifest.h"

namespace mixtune {

class StepGuard {
 public:
  struct Options {
    int64_t skip_nonfinite_steps = 0;  // in a row at most; 0: the first one ends the run
    bool stop_on_divergence = false;
    bool say = true;  // this rank warns
  };
  // `before`: of the checkpoint that the run goes on from.
  StepGuard(const Options& options, const SkippedSteps& before) : options_(options), skipped_(before) {}

  // Of a step with targets. Where loss or gradient norm is not finite, no weight has changed: that is warned of and
  // counted. Throws Error (kWentBad) where the run is to end. Gives the record its skipped_steps in any case.
  void check(StepRecord& record);

  const SkippedSteps& skipped() const { return skipped_; }
  // Whether checkpoints wait: the loss is over its limit, and may be about to end the run.
  bool holds_saves() const { return options_.stop_on_divergence && watchdog_.steps_over() > 0; }

 private:
  void skip(const StepRecord& record);
  void watch(const StepRecord& record);

  Options options_;
  SkippedSteps skipped_;
  Watchdog watchdog_;
};

}  // namespace mixtune
