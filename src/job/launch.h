// Launch: what the launcher of this process says of its job.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "job/launch_variables.h"

namespace mixtune {

struct Launch {
  int rank = 0, size = 1, local_rank = 0;
  std::string host;  // where rank 0, or our supervisor, coordinates
  int port = 0;
  bool supervised = false;  // our supervisor started this process: it coordinates, and prints why the job failed
};

// How this process was started.
struct Start {
  std::optional<Launch> rank;  // of a job of several, or of our supervisor; none: alone
  std::string
      ignored;  // one line: which variables look like a launcher's, and why they do not count; "": there are none
};

struct StartOptions {
  int nproc = 0;             // the ranks that this process is asked to start itself; 0: it is not
  bool at_terminal = false;  // it is a command of a shell at a terminal, not what a launcher started
};

// By the environment variables of our supervisor, torchrun, MPI's launchers, srun or an operator (docs/parallel.md has
// the table). A job of one rank is none; a variable that was left behind makes no rank. Throws UserError, which names
// the variables, where they leave open what this process is, or make it a rank although nproc asks for ranks.
Start start_from(const GetEnv& getenv, const StartOptions& options = {});

}  // namespace mixtune
