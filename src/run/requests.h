// Requests: what asks a run to stop, or to save, while it trains: signals, its time limit, a file.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>

namespace mixtune {

// While one lives, SIGTERM, SIGUSR1 and SIGINT ask this process's run to stop, in place of ending it. A second SIGINT
// ends it at once; more of the others change nothing. One at a time, made by the main thread.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  static std::string name();  // of the signal that came first, "SIGTERM"; "" where none did
};

// The end that a run must not pass: of its time_limit, or of its job (SLURM_JOB_END_TIME in the environment).
class Deadline {
 public:
  using Clock = std::chrono::system_clock;

  // `began`: when the limit begins to count. `first_save`: seconds that a save is taken to last until there was one.
  Deadline(std::optional<double> limit_seconds, Clock::time_point began, double first_save);

  // Remembers how long a step or a save took.
  void took_step(double seconds);
  void took_save(double seconds);
  // Whether the run must stop now to have a checkpoint in time: another step and so many saves, each half as long again
  // as the longest yet, would not end before.
  bool is_near(Clock::time_point now, int saves = 1) const;

 private:
  std::optional<Clock::time_point> end_;
  double step_ = 0, save_;  // the longest, in seconds
  bool has_saved_ = false;
};

}  // namespace mixtune
