// Launch: what this process's launcher says of its job.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "job/launch_variables.h"

namespace mixtune {

struct Launch {
  int rank = 0, size = 1, local_rank = 0;
  std::string host;  // rank 0's, or the supervisor's, who coordinates
  int port = 0;
  bool supervised = false;  // our supervisor started this process: it coordinates, and prints why the job failed
};

// How this process was started.
struct Start {
  std::optional<Launch> rank;  // its rank in a job of several, or under our supervisor; none: it is alone
  std::string
      ignored;  // one line: which variables look like a launcher's, and why they do not count; "": there are none
};

struct StartOptions {
  int nproc = 0;             // how many ranks this process is asked to start itself; 0: none
  bool at_terminal = false;  // a shell's command at a terminal, not started by a launcher
};

// Reads the variables of our supervisor, torchrun, MPI's launchers, srun or an operator (docs/parallel.md has the
// table). A job of one rank is none; a variable that was left behind makes no rank. Throws UserError, which names the
// variables, where they leave open what this process is, or make it a rank although nproc asks for ranks.
Start start_from(const GetEnv& getenv, const StartOptions& options = {});

}  // namespace mixtune
