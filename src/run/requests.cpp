#include "run/requests.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <string_view>

#include "base/error.h"

namespace mixtune {

namespace {

constexpr std::array kSignals = {SIGTERM, SIGUSR1, SIGINT};
std::atomic<int> first_signal = 0;
std::atomic<bool> interrupted = false;
static_assert(std::atomic<int>::is_always_lock_free);

// oneDNN's kernels point the stack pointer into their scratch memory, where a handler would write over what lies below.
// Signals to a process come to its main thread, which has this stack for them.
alignas(64) std::array<std::byte, 64 << 10> handler_stack;
stack_t stack_before;

void ask(int signal) {
  const int error = errno;
  int none = 0;
  first_signal.compare_exchange_strong(none, signal);
  if (signal == SIGINT && interrupted.exchange(true)) {
    ::signal(SIGINT, SIG_DFL);
    raise(SIGINT);  // comes when this returns
    return;
  }
  constexpr std::string_view kLine =
      "mixtune: stopping after this step, with a checkpoint; a second Ctrl-C ends at once\n";
  if (signal == SIGINT && write(STDERR_FILENO, kLine.data(), kLine.size()) < 0) {
    // Nobody reads it: the run stops all the same.
  }
  errno = error;
}

}  // namespace

StopSignals::StopSignals() {
  first_signal = 0;
  interrupted = false;
  const stack_t stack = {.ss_sp = handler_stack.data(), .ss_flags = 0, .ss_size = handler_stack.size()};
  MT_CHECK(sigaltstack(&stack, &stack_before) == 0);
  struct sigaction handler {};
  handler.sa_handler = ask;
  handler.sa_flags = SA_RESTART | SA_ONSTACK;
  for (const int signal : kSignals) sigaction(signal, &handler, nullptr);
}

StopSignals::~StopSignals() {
  for (const int signal : kSignals) ::signal(signal, SIG_DFL);
  sigaltstack(&stack_before, nullptr);
}

std::string StopSignals::name() {
  const int signal = first_signal;
  return signal == 0 ? "" : fmt::format("SIG{}", sigabbrev_np(signal));
}

Deadline::Deadline(std::optional<double> limit_seconds, Clock::time_point began, double first_save)
    : save_(first_save) {
  const auto at_most = [&](Clock::time_point end) {
    end_ = end_ ? std::min(*end_, end) : end;
  };
  if (limit_seconds)
    at_most(began + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(*limit_seconds)));
  const char* job_end = std::getenv("SLURM_JOB_END_TIME");
  if (job_end != nullptr && std::atoll(job_end) > 0) at_most(Clock::from_time_t(std::atoll(job_end)));
}

void Deadline::took_step(double seconds) {
  step_ = std::max(step_, seconds);
}
void Deadline::took_save(double seconds) {
  save_ = has_saved_ ? std::max(save_, seconds) : seconds;
  has_saved_ = true;
}

bool Deadline::is_near(Clock::time_point now, int saves) const {
  if (!end_) return false;
  return std::chrono::duration<double>(*end_ - now).count() < 1.5 * (step_ + saves * save_);
}

}  // namespace mixtune
