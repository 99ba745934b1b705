// OutputFolder: the output_dir of a run, used by one run at a time.
//
// It holds checkpoint-N folders, `latest` (one line: the name of the newest), metrics.jsonl, config.resolved.yaml,
// trace.json and .lock. Only these are ever removed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/file.h"

namespace mixtune {

struct OutputRequest {
  std::string path;
  bool overwrite = false;           // remove what an earlier run left
  std::vector<std::string> inputs;  // files and folders that the run reads
};

// Throws UserError where an OutputFolder could not be made: `path` is a file, in a place that cannot be written, in or
// equal to a folder of inputs, in use by another run, or holds an earlier run's results and `overwrite` is not set (or
// would remove an input). Changes nothing.
void check_output_folder(const OutputRequest& request);

class OutputFolder {
 public:
  // Checks as above, makes the folder and its parents, locks it and removes what it is to overwrite.
  explicit OutputFolder(const OutputRequest& request);

  const std::string& path() const { return path_; }
  std::string file(const char* name) const { return path_ + "/" + name; }
  std::string checkpoint_path(int64_t step) const;

  // Makes `latest` name the checkpoint of `step`, once that is on the disk.
  void write_latest(int64_t step) const;
  // Removes the oldest checkpoints until `save_total_limit` are left, but never the newest; 0 keeps all.
  void prune(int64_t save_total_limit) const;

 private:
  std::string path_;
  Fd lock_;  // the kernel unlocks it when it is closed, or the process killed
};

}  // namespace mixtune
