// JsonlSink: writes metrics.jsonl, one JSON object a record, in the file when the call returns.
#pragma once

#include <string>

#include "metrics/metric_sink.h"
#include "metrics/record_file.h"

namespace mixtune {

// Numbers read back as the same doubles; NaN and infinities, which JSON lacks, are null. A step has the names of
// kStepFields, an evaluation those of kEvalFields (and no "loss"). RecordFile says what becomes of a record that cannot
// be written.
class JsonlSink : public MetricSink {
 public:
  // As RecordFile's.
  explicit JsonlSink(const std::string& path, bool goes_on = false) : file_(path, goes_on) {}

  void step(const StepRecord& record) override;
  void evaluation(const EvalRecord& record) override;
  void finish() override { file_.finish(); }

 private:
  RecordFile file_;
};

}  // namespace mixtune
