// Launch: what the launcher of this process says of its job.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace mixtune {

struct Launch {
  int rank = 0, size = 1, local_rank = 0;
  std::string host;  // where rank 0, or our supervisor, coordinates
  int port = 0;
  bool supervised = false;  // our supervisor started this process: it coordinates, and prints why the job failed
};

// From the environment variables of torchrun (and of our supervisor, which sets the same), srun or mpirun; none where
// the process was started alone. Throws UserError, which names the variable, where they are not all there or make no
// sense.
std::optional<Launch> launch_from(const std::function<const char*(const char*)>& getenv);

}  // namespace mixtune
