// 'mixtune bench save': what a checkpoint costs training, how fast it is written, and read again.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "bench/step.h"

namespace mixtune {

struct SaveBench {
  StepBench step;      // what is trained meanwhile
  std::string folder;  // an output_dir, which all ranks see
  std::optional<uint64_t> host_memory = {};
  bool cold = false;  // before files are read again, the system is told to forget what it holds of them
};

// Of the slowest rank, where they differ. Rates are those of all ranks together, in GB (10^9 bytes) a second.
struct SaveBenchResult {
  std::string device;
  uint64_t bytes = 0, copied_bytes = 0, host_bytes = 0;  // of the checkpoint; that a rank copies, and has room for
  double step_milliseconds = 0;                          // without a save
  double copy_milliseconds = 0;                          // of a save with no step beside it, until training could go on
  double stall_milliseconds = 0;                         // what the step after a save's beginning took longer
  double beside_milliseconds = 0;                        // a step while a checkpoint is written: the median
  double alone_rate = 0, beside_rate = 0;                // of writing, from the beginning to `latest`
  double weights_rate = 0, state_rate = 0;               // of reading each of the two again
  bool same = false;                                     // what was read is what the device had
};

// All ranks call this.
SaveBenchResult bench_save(const SaveBench& bench);
std::string print_table(const SaveBench& bench, const SaveBenchResult& result);
std::string print_json(const SaveBench& bench, const SaveBenchResult& result);

}  // namespace mixtune
