// Job: this process as a rank of a job, from what its launcher says to the groups in which it talks.
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
  std::string token;                    // the supervisor's for its ranks, or the user's for all ranks; "": none
  std::chrono::milliseconds timeout{};  // collective_timeout
  // Called once, when the job has failed elsewhere (from another thread), or a GPU never comes to an end: it ends the
  // process. Not called for fail() here.
  std::function<void(const Failure&)> on_failure;
};

class Job {
 public:
  // Joins the others. Rank 0 coordinates, unless a supervisor does. Throws Error where the others do not come in time.
  explicit Job(JobOptions options);
  // Says goodbye, unless an exception unwinds; rank 0 then stays until all have.
  ~Job();

  // Throws UserError where this rank's entries differ from rank 0's: it names those that do.
  void compare(const Entries& entries);

  // The ranks of the job, each on a `device` of its own if that is a GPU. All call this. The job outlives them.
  Ranks connect(Device device, const RankGrid& grid);

  RankProgress& progress() { return *client_; }
  // Tells the others that this rank has failed. Returns why the job has, which may be what came before.
  Failure fail(const std::string& message, int exit_code);

 private:
  std::unique_ptr<Communicator> connect_all(Device device);
  Ranks connect_gpus(Device device, const RankGrid& grid);

  JobOptions options_;
  std::optional<Coordinator> coordinator_;
  std::unique_ptr<CoordinatorClient> client_;
};

}  // namespace mixtune
