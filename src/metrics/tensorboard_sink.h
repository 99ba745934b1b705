// TensorBoardSink: writes an event file, one event a record, in the file when the call returns.
#pragma once

#include <string>
#include <vector>

#include "metrics/event_file.h"
#include "metrics/metric_sink.h"
#include "metrics/record_file.h"

namespace mixtune {

// kStepFields and kEvalFields say which numbers are shown, and as what; those of ranks and experts are a scalar each,
// `rank_tokens/0`, `expert_tokens/0`. Numbers are rounded to fp32, which has NaN and infinities. RecordFile says what
// becomes of a record that cannot be written.
class TensorBoardSink : public MetricSink {
 public:
  // Makes the file, which must not exist, of a run whose first step here is `first_step`. Throws Error where that
  // cannot be. The file has its name once it begins as event files do.
  TensorBoardSink(const std::string& path, int64_t first_step);

  void step(const StepRecord& record) override;
  void evaluation(const EvalRecord& record) override;
  void finish() override { file_.finish(); }

 private:
  void write(int64_t step, const std::vector<Scalar>& scalars);

  RecordFile file_;
};

}  // namespace mixtune
