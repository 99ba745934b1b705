// Trainer: the parts of a training run, and what it does in a step.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/model_folder.h"
#include "checkpoint/save.h"
#include "config/config.h"
#include "config/router_losses.h"
#include "metrics/metric_sink.h"
#include "run/contract.h"
#include "run/manifest.h"
#include "run/output_folder.h"
#include "run/saver.h"
#include "train/early_stopping.h"
#include "train/evaluate.h"
#include "train/instance_options.h"
#include "train/run_data.h"
#include "train/step_guard.h"
#include "train/step_runner.h"
#include "train/throughput.h"

namespace mixtune {

class Trainer {
 public:
  // Reads the model and the data; writes nothing. Every rank has a trainer, and all call its functions together; rank 0
  // alone writes and reports. `ranks` outlive it.
  explicit Trainer(const Config& config, const Ranks& ranks = single_rank());

  // Claims output_dir and, once every rank is known to see it, begins the records there. Throws UserError, with
  // everything as it was, where a rank does not see it.
  void open_output();

  int64_t first_step() const { return first_step_; }  // 1, or the one after the checkpoint's
  int64_t total_steps() const { return total_steps_; }
  // Whether the checkpoint to go on from is of the run's end.
  bool is_done() const { return first_step_ > total_steps_ || (resumed_ && ended_early()); }
  Instance& instance() { return instance_; }

  // Runs optimizer step `step`, counted from 1: forward and backward of every micro-batch, clipping, AdamW. Where the
  // loss or the gradient norm is not finite, the weights are as they were. Throws Error (kWentBad) where that, or a
  // loss that diverged, ends the run (StepGuard).
  // `asked`, if any, is called just before the update: what this rank asks of all; requests() has what any did.
  StepRecord step(int64_t step);
  void set_asked(std::function<StepRunner::Requests()> asked) { asked_ = std::move(asked); }
  const StepRunner::Requests& requests() const { return requests_; }
  // Runs a step and writes its trace to output_dir, if that can be written.
  StepRecord profiled_step(int64_t step);

  bool leads() const { return instance_.ranks().grid.rank == 0; }
  // Whether a file SAVE lies in output_dir, and no checkpoint is being written. For rank 0.
  bool save_wanted() const { return !saver_->is_busy() && output_->save_wanted(); }
  // After `step`; 0: before the first one of a run that begins.
  bool evaluation_due(int64_t step) const;
  // Evaluates each set and reports it. Warns where a loss is not finite: training goes on, and finish() throws if it
  // was of the last time. What comes before training, at step 0, is shown alone: it is no improvement, and nothing is
  // judged by it.
  void evaluate(int64_t step);
  // Whether the last evaluation ends the run (EarlyStopping); say_ended_early() says so.
  bool ended_early() const { return stopping_.has_ended(); }
  void say_ended_early(int64_t step) const;

  // Whether a checkpoint is to be saved after the step: at the end of the run; or where the time of one has come, or
  // any rank asked for one, which waits while the loss is over its limit (StepGuard::holds_saves).
  bool save_due(int64_t step);
  // Begins checkpoint-`step`, which is written behind training. Throws Error, with nothing written, where ranks that
  // hold the same weights do not hold the same bits.
  void save(int64_t step);
  // Ends it, once the step's requests() say that all ranks are settled. Throws Error (kWentBad) where it is not finite.
  void end_save() { saver_->end(); }
  // Whether a checkpoint is being written; how long the last took, 0 where there was none. For rank 0.
  bool is_saving() const { return saver_->is_busy(); }
  double last_save() const { return saver_->last_seconds(); }

  void report(const StepRecord& record);
  // In place of all these, where is_done().
  void close();
  // Waits for the last checkpoint and ends the records. Throws Error where that could not be written, and (kWentBad)
  // where the last evaluation was not finite.
  void finish();

 private:
  void check_place();
  std::string lack_of_space() const;
  void announce();
  void check_replicas(int64_t step);
  SaveOptions save_options(const std::string& path) const;
  void load();
  void check_memory_to_save() const;
  void make_saver();
  StepRecord skipped_step(int64_t step, const Step& rows);
  StepRunner::Requests own_requests() const;
  void check(StepRecord& record);
  void finish_saving_quietly();
  void finish_records();
  static void report_run(const std::string& folder);

  Config config_;
  std::optional<Manifest> resumed_;  // of the checkpoint that the run goes on from
  ModelFolder folder_;
  InstanceOptions options_;
  Instance instance_;
  StepRunner runner_;
  Throughput throughput_;
  RunData data_;
  RouterLosses router_losses_;
  Loader loader_;
  std::vector<std::unique_ptr<Evaluator>> evaluators_;  // one for each set
  int64_t total_steps_, first_step_ = 1;
  Contract contract_;
  std::function<StepRunner::Requests()> asked_;
  StepRunner::Requests requests_;
  std::string plans_;  // digest of the matrix products' algorithms
  StepGuard guard_;
  EarlyStopping stopping_;
  bool save_waits_ = false;
  std::vector<EvalRecord> last_evaluations_;  // of one step, one for each set
  std::optional<OutputFolder> output_;
  std::vector<std::unique_ptr<MetricSink>> sinks_;
  std::optional<Saver> saver_;  // last: its thread uses the others
};

}  // namespace mixtune
