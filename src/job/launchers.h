// The launchers whose variables mixtune reads, and what their variables say of a process.
#pragma once

#include <optional>
#include <string>

#include "job/launch.h"
#include "job/launch_variables.h"

namespace mixtune {

struct Launcher {
  const char *rank, *size, *local_rank;  // names of variables
  const char* local_size = nullptr;      // variable: ranks on this machine; MPI's launchers have it
  const char* set_address = nullptr;     // how a user sets MASTER_ADDR for all ranks
};

// A process's place by one launcher's variables. It is in a job only where the size is above 1.
struct Claim {
  const Launcher* launcher;
  int rank, size;

  bool is_job() const { return size > 1; }
  // For hints: "'unset RANK WORLD_SIZE'", "or 'unset RANK WORLD_SIZE' to run alone".
  std::string unset() const;
  std::string or_alone() const;
};

// The claim of RANK and WORLD_SIZE, which torchrun sets, an operator or a script. None where they are not both set.
std::optional<Claim> claim_of_pytorch(const LaunchVariables& variables);

// The claim of the MPI launcher or srun that started this process; the inner one where one starts the other.
// `at_terminal`: the process is a command of a shell at a terminal, which is no rank even where srun --pty started the
// shell in a step of many. All these throw UserError where a launcher's variables are not all there or make no sense.
std::optional<Claim> claim_of_launcher(const LaunchVariables& variables, bool at_terminal);

Launch rank_of_pytorch(const LaunchVariables& variables, const Claim& claim);
Launch rank_of_launcher(const LaunchVariables& variables, const Claim& claim);

}  // namespace mixtune
