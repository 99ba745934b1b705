// Saver: the checkpoints of a run, written behind its training.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "checkpoint/save.h"
#include "parallel/ranks.h"
#include "run/manifest.h"
#include "run/output_folder.h"

namespace mixtune {

// All ranks call its functions together, unless they say otherwise.
class Saver {
 public:
  struct Options {
    std::optional<uint64_t> host_memory;  // for copies; none: what a checkpoint needs, but half of what is free at most
    bool only_model = false;
    int64_t total_limit = 0;  // OutputFolder::prune
  };
  // Takes the host memory. `typical`: what checkpoints will be saved with. All that it is given outlives it.
  Saver(Ctx& ctx, const State& state, const Ranks& ranks, const SaveOptions& typical, const Options& options);

  uint64_t checkpoint_bytes() const { return bytes_; }  // of a checkpoint, from all ranks
  uint64_t copied_bytes() const { return own_bytes_; }  // that this rank copies to the host for one
  uint64_t host_bytes() const { return behind_->bytes(); }
  // "... of checkpoints are written behind training" for the log, of this rank.
  std::string str() const;

  // Copies what the checkpoint of manifest.step is to have, and leaves its writing to a thread; the state may change
  // afterwards. Ends the one before it first. `manifest` is the checkpoint's, but for its version and files; `output`
  // is rank 0's. Nothing that goes wrong is thrown here.
  void begin(const Manifest& manifest, const SaveOptions& options, OutputFolder* output);
  // Whether something of a checkpoint is left to do, here or (in rank 0 alone) on the way to its name.
  bool is_busy() const { return pending_ != nullptr || !behind_->idle(); }
  // Whether this rank has nothing left to write of the pending one. Any rank may ask, alone.
  bool is_settled() const { return pending_ != nullptr && behind_->idle(); }
  // Waits until all ranks are settled; then rank 0 gives the checkpoint its name, makes `latest` name it (and `best`
  // the best) and removes old ones, behind training too. Where a rank could not write, all give the checkpoint up, with
  // a warning. Throws Error (kWentBad) where a value was not finite.
  void end();
  // Waits for all of it. Throws Error where the last checkpoint could not be written.
  void finish();

  // How long the last one took, from its beginning to `latest`; 0 where rank 0 has not seen one.
  double last_seconds() const { return last_seconds_; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Pending;

  void put_commit(const StoredFiles& files);
  void commit(Pending& pending, const StoredFiles& files);
  void give_up(const std::string& failure);
  std::string own_outcome();

  Ctx& ctx_;
  const State& state_;
  const Ranks& ranks_;
  Options options_;
  uint64_t bytes_ = 0, training_bytes_ = 0;  // of all ranks; the latter: without the model
  uint64_t own_bytes_ = 0;                   // that this rank copies
  std::shared_ptr<Pending> pending_;
  std::string failure_;         // why the last checkpoint could not be written
  std::string commit_failure_;  // the same of rank 0's thread, once that is idle
  std::atomic<double> last_seconds_ = 0;
  std::unique_ptr<WriteBehind> behind_;
};

}  // namespace mixtune
