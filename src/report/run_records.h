// RunRecords: what a metrics.jsonl holds, read once, in memory that does not grow with it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "metrics/run_summary.h"
#include "report/alerts.h"
#include "report/layer_map.h"
#include "report/load_map.h"
#include "report/series.h"

namespace mixtune {

struct NamedSeries {
  std::string name;
  Series series;
};

class RunRecords {
 public:
  static constexpr size_t kMostNames = 64;          // of numbers of a step, and of evaluations
  static constexpr int64_t kMostRecords = 4 << 20;  // that are read: RunSummary keeps a number of each

  // Reads the file. What is no record of a run is left out, and counted. Throws UserError where there is no file, Error
  // where it cannot be read.
  explicit RunRecords(const std::string& path);

  // Each number that a step has, by its name in the file; of a list (a number of each rank) the spread. Those of
  // kStepFields come first. Where a step has no target, its losses and its gradient norm are holes.
  const std::vector<NamedSeries>& numbers() const { return numbers_; }
  const Series* find(const std::string& name) const;  // null: there is none, or nothing in it
  // eval_loss, by the set's name.
  const std::vector<NamedSeries>& evaluations() const { return evaluations_; }
  // Parts of a step's time that its ranks spent with others, in percent, the mean of ranks; those that were recorded.
  const std::vector<NamedSeries>& shares() const { return shares_; }
  const LoadMap& load() const { return load_; }
  const LayerMap& layer_load() const { return layer_load_; }
  const RunSummary& summary() const { return summary_; }
  const Alerts& alerts() const { return alerts_; }

  bool empty() const { return steps_ == 0 && evaluations_.empty(); }
  int64_t first_step() const { return first_step_; }  // of all records; where there is one
  int64_t last_step() const { return last_step_; }
  int64_t total_steps() const { return total_steps_; }  // that the run was to have; 0: no record says
  int64_t steps() const { return steps_; }              // records of a step
  double tokens() const { return tokens_; }
  double milliseconds() const { return milliseconds_; }

  int64_t unread() const { return unread_; }       // lines that are no record, or not of a later step than those before
  bool is_cut_off() const { return is_cut_off_; }  // there are more than kMostRecords

 private:
  void add_line(const std::string& line);
  bool add_step(const nlohmann::json& object, int64_t step);
  bool add_evaluation(const nlohmann::json& object, int64_t step);
  void add_numbers(const nlohmann::json& object, const StepRecord& record);
  void add_parallel(const nlohmann::json& object, const StepRecord& record);
  void add_summary(const nlohmann::json& object, StepRecord record);

  std::vector<NamedSeries> numbers_, evaluations_, shares_;
  LoadMap load_;
  LayerMap layer_load_;
  RunSummary summary_;
  Alerts alerts_;
  int64_t first_step_ = -1, last_step_ = -1, last_trained_ = -1, total_steps_ = 0, steps_ = 0, unread_ = 0;
  double tokens_ = 0, milliseconds_ = 0;
  bool is_cut_off_ = false;
};

}  // namespace mixtune
