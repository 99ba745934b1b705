// JsonlSink: writes metrics.jsonl, one JSON object a record, in the file when the call returns.
#pragma once

#include <cstdint>
#include <string>

#include "base/file.h"
#include "metrics/metric_sink.h"

namespace mixtune {

// Numbers read back as the same doubles; NaN and infinities, which JSON lacks, are null. A step has the names of
// StepRecord's fields, an evaluation those of EvalRecord's (and no "loss"). A record that cannot be written (a full
// disk) is missing whole: the first draws a warning, and finish says how many.
class JsonlSink : public MetricSink {
 public:
  // Makes the file, which must not exist, or (`goes_on`) adds to one. Throws UserError where that cannot be.
  explicit JsonlSink(const std::string& path, bool goes_on = false);

  void step(const StepRecord& record) override;
  void evaluation(const EvalRecord& record) override;
  void finish() override;

 private:
  void write(std::string line);
  void warn(int error, const char* consequence);

  std::string path_;
  Fd file_;
  int64_t size_ = 0;      // the size of the whole lines
  int64_t lost_ = 0;      // records not written
  bool is_clean_ = true;  // the file ends with a whole line
  bool warned_ = false;
};

}  // namespace mixtune
