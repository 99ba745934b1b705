// OutputFolder: a run's output_dir, used by one run at a time. It alone knows the names there: checkpoint-N folders,
// `latest` and `best` (one line: the name of the newest, of the best), metrics.jsonl, config.resolved.yaml,
// environment.json, report.html, trace.json, .lock and, in `runs`, mixtune's own event files. Nothing else is ever
// removed, and none of these is replaced unless `overwrite` says so.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "run/best_checkpoint.h"
#include "run/folder_claim.h"

namespace mixtune {

// Names that others read or write there too.
constexpr const char *kMetricsFile = "metrics.jsonl", *kResolvedFile = "config.resolved.yaml",
                     *kEnvironmentFile = "environment.json", *kReportFile = "report.html";

struct OutputRequest {
  std::string path;
  bool overwrite = false;                // removes what an earlier run left
  std::optional<int64_t> resumes = {};   // goes on after checkpoint-N of this very folder
  bool may_start_over = false;           // replaces what a run without a checkpoint left
  std::string best_metric = {};          // by which `best` names a checkpoint that stays (BestCheckpoint); empty: none
  bool makes_events = false;             // the run makes an event file
  std::vector<std::string> inputs = {};  // files and folders that the run reads: never removed
};

// Throws UserError where an OutputFolder could not be made: `path` is a file, in a place that cannot be written, in or
// equal to a folder of inputs, in use by another run, or holds files of the names above and `overwrite` is not set (or
// would remove an input). A run that recorded nothing leaves no obstacle. A run that goes on keeps all but what came
// after its checkpoint: newer checkpoints are in its way, unless they are not whole. Changes nothing.
void check_output_folder(const OutputRequest& request);

class OutputFolder {
 public:
  // Checks like check_output_folder, makes the folder and its parents, and locks it. The destructor undoes that all,
  // unless begin() was called.
  explicit OutputFolder(const OutputRequest& request);

  // Begins the run: removes what it overwrites, what killed runs left, and of a run that goes on the records of later
  // steps. Throws UserError as the constructor does.
  void begin();

  const std::string& path() const { return request_.path; }
  std::string metrics_path() const;
  std::string trace_path() const;
  std::string new_event_path() const;  // makes the folder that it is in
  std::string checkpoint_path(int64_t step) const;

  // In place of begin(), of a run that goes on and has nothing left to train: what a kill may have kept from being done
  // then. Whether that is done.
  void close(int64_t save_total_limit);
  static bool is_closed(const OutputRequest& request, int64_t save_total_limit);

  // The bytes that its disk has left, and those of checkpoints that begin() will remove.
  uint64_t bytes_to_fill() const;

  // Whether somebody has made a file SAVE in the folder, which asks for a checkpoint; removes it, once there is one.
  bool save_wanted() const;
  void end_save_wanted() const;

  void write_config(std::string_view text) const;
  void write_environment(std::string_view text) const;
  // Makes `latest` name the checkpoint of `step`, once the checkpoint is on the disk.
  void write_latest(int64_t step) const;
  // After write_latest, with the evaluation of that step: makes `best` name the best of all checkpoints that are there.
  void write_best(int64_t step, const Evaluation& evaluation);
  // "checkpoint-20, eval_loss 2.5"; "" where there is none.
  std::string best_str() const;
  // Removes the oldest checkpoints until `save_total_limit` are left, never the newest, nor the best. 0 keeps all.
  void prune(int64_t save_total_limit) const;

 private:
  void go_on(int64_t after);
  void name_newest(int64_t step);
  void name_best(const std::vector<int64_t>& steps) const;
  std::string file(const char* name) const { return path() + "/" + name; }

  OutputRequest request_;
  FolderClaim claim_;
  BestCheckpoint best_;
};

}  // namespace mixtune
