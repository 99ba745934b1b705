// metrics.jsonl: one JSON object a record, on disk when the call returns.
#pragma once

#include <cstdio>
#include <memory>
#include <string>

#include "metrics/metric_sink.h"

namespace mixtune {

// Numbers read back as the same doubles; NaN and infinities, which JSON lacks, are null. A step has the names of
// StepRecord's fields, an evaluation those of EvalRecord's (and no "loss").
class JsonlSink : public MetricSink {
 public:
  // Replaces the file. Throws Error where it cannot be written.
  explicit JsonlSink(const std::string& path);

  void step(const StepRecord& record) override;
  void evaluation(const EvalRecord& record) override;
  void finish() override;

 private:
  void write(const std::string& line);

  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace mixtune
