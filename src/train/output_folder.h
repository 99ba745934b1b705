// OutputFolder: the output_dir of a run, used by one run at a time. It alone knows the names in it: checkpoint-N
// folders, `latest` (one line: the name of the newest), metrics.jsonl, config.resolved.yaml, trace.json and .lock. Only
// these are ever removed, and none is replaced but by `overwrite`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "train/folder_claim.h"

namespace mixtune {

struct OutputRequest {
  std::string path;
  bool overwrite = false;           // remove what an earlier run left
  std::vector<std::string> inputs;  // files and folders that the run reads
};

// Throws UserError where an OutputFolder could not be made: `path` is a file, in a place that cannot be written, in or
// equal to a folder of inputs, in use by another run, or holds files of the names above and `overwrite` is not set (or
// would remove an input). What a run left that recorded nothing is no obstacle. Changes nothing.
void check_output_folder(const OutputRequest& request);

class OutputFolder {
 public:
  // Checks as above, makes the folder and its parents, and locks it. An OutputFolder that ends before begin() leaves
  // everything as it was.
  explicit OutputFolder(const OutputRequest& request);

  // The run begins: what it is to overwrite goes, and what killed runs left. Throws UserError as the constructor does.
  void begin();

  const std::string& path() const { return request_.path; }
  std::string metrics_path() const;
  std::string trace_path() const;
  std::string checkpoint_path(int64_t step) const;

  void write_config(std::string_view text) const;
  // Makes `latest` name the checkpoint of `step`, once that is on the disk.
  void write_latest(int64_t step) const;
  // Removes the oldest checkpoints until `save_total_limit` are left, but never the newest; 0 keeps all.
  void prune(int64_t save_total_limit) const;

 private:
  std::string file(const char* name) const { return path() + "/" + name; }

  OutputRequest request_;
  FolderClaim claim_;
};

}  // namespace mixtune
