// Job: this process as one of the ranks of a job, from what its launcher says to the groups in which it talks.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "job/coordinator.h"
#include "job/coordinator_client.h"
#include "job/launch.h"
#include "parallel/ranks.h"

namespace mixtune {

struct JobOptions {
  Launch launch;
  std::string token;                    // the supervisor's, for its ranks, or the user's, of all ranks; "": none
  std::chrono::milliseconds timeout{};  // collective_timeout
  // Called once, when the job has failed elsewhere (from another thread), or a GPU never comes to an end: it ends the
  // process. Not for fail() here.
  std::function<void(const Failure&)> on_failure;
};

class Job {
 public:
  // Joins the others; rank 0 coordinates, unless a supervisor does. Throws Error where they do not come in time.
  explicit Job(JobOptions options);
  // Says goodbye, unless an exception is what ends it; rank 0 then stays until all have.
  ~Job();

  // Throws UserError where this rank's entries are not those of rank 0: it names what differs.
  void compare(const Entries& entries);

  // All ranks call this; they compute on `device`, on GPUs each with its own. The job outlives the ranks.
  Ranks connect(Device device, const RankGrid& grid);

  RankProgress& progress() { return *client_; }
  // Tells the others that this rank has failed; returns why the job has, which may be what came before it.
  Failure fail(const std::string& message, int exit_code);

 private:
  std::unique_ptr<Communicator> connect_all(Device device);
  Ranks connect_gpus(Device device, const RankGrid& grid);

  JobOptions options_;
  std::optional<Coordinator> coordinator_;
  std::unique_ptr<CoordinatorClient> client_;
};

}  // namespace mixtune
