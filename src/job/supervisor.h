// supervise: starts the ranks of a job on this machine, coordinates them, and makes them end together.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace mixtune {

struct SupervisorOptions {
  std::string program = {};          // of every rank, found as the shell finds it; empty: the first word of `command`
  std::vector<std::string> command;  // its words; the first is what lists of processes show
  int ranks = 1;
  bool first_reads = false;                  // rank 0 has this process's standard input
  std::chrono::milliseconds timeout{30000};  // CoordinatorOptions::timeout
  // The time that ranks have after a failure to end by themselves; then a third of it to end by SIGTERM.
  std::chrono::milliseconds grace{3000};
};

struct Outcome {
  int exit_code = 0;
  std::string message;  // one line: why the job failed; "" where it did not
};

// Runs `ranks` processes with torchrun's variables, MIXTUNE_SUPERVISED=1 and MIXTUNE_TOKEN in their environment, until
// all have ended: with 0, or together because one failed. A SIGINT, SIGTERM or SIGUSR1 goes to all as SIGTERM; a SIGINT
// after that kills them, the others change nothing: 128 + signal, or kStopped where ranks ended with that, which is no
// failure. Standard output and error are shared, standard input is empty. Ranks are process groups of their own, but
// for a rank 0 that reads, as a terminal lets its foreground group alone; they die with the calling thread.
Outcome supervise(const SupervisorOptions& options);

}  // namespace mixtune
