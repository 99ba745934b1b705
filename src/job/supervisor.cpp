#include "job/supervisor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "base/staged.h"
#include "job/coordinator.h"

namespace mixtune {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kWatchTick{20};
constexpr milliseconds kReapTime{300};  // a process whose connection ended is reaped within this time, if it has ended
constexpr const char* kHost = "127.0.0.1";
constexpr int kCannotStart = 127;
constexpr int kStopped = static_cast<int>(ExitCode::kStopped);

// Whether a rank ended because it was told to stop: others may still be saving.
bool has_stopped(int status) {
  return WIFEXITED(status) && WEXITSTATUS(status) == kStopped;
}

// The pipe for signals' numbers, or -1. A handler can reach nothing else.
std::atomic<int> signal_pipe = -1;
static_assert(std::atomic<int>::is_always_lock_free);

void tell(int signal) {
  const int error = errno;
  const auto number = static_cast<unsigned char>(signal);
  if (write(signal_pipe, &number, 1) < 0) {
    // A full pipe has many signals to be read, and one more tells nothing new.
  }
  errno = error;
}

// While this lives, signals come to this process as data, whichever of its threads they reach: threads that others have
// started, as CUDA's driver does, do not block them.
class Signals {
 public:
  Signals() : read_end_(make_pipe()), write_end_(signal_pipe) {
    struct sigaction handler {};
    handler.sa_handler = tell;
    handler.sa_flags = SA_RESTART | SA_NOCLDSTOP;
    for (size_t i = 0; i < kHandled.size(); ++i) sigaction(kHandled[i], &handler, &old_[i]);
  }
  ~Signals() {
    for (size_t i = 0; i < kHandled.size(); ++i) sigaction(kHandled[i], &old_[i], nullptr);
    signal_pipe = -1;
  }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  // The next signal, or 0 where none comes in time.
  int wait(milliseconds time) {
    pollfd polled = {.fd = read_end_.get(), .events = POLLIN};
    poll(&polled, 1, static_cast<int>(time.count()));
    unsigned char signal = 0;
    return read(read_end_.get(), &signal, 1) == 1 ? signal : 0;
  }

 private:
  static constexpr std::array kHandled = {SIGCHLD, SIGINT, SIGTERM, SIGUSR1};

  static int make_pipe() {
    MT_CHECK(signal_pipe < 0);  // only one supervisor may exist
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
      throw Error("signals", std::strerror(errno), "raise the number of open files, ulimit -n");
    signal_pipe = ends[1];
    return ends[0];
  }

  Fd read_end_, write_end_;
  std::array<struct sigaction, kHandled.size()> old_{};
};

// Strings in the form that exec takes.
class Strings {
 public:
  explicit Strings(std::vector<std::string> strings) : strings_(std::move(strings)) {
    for (std::string& s : strings_) pointers_.push_back(s.data());
    pointers_.push_back(nullptr);
  }
  Strings(const Strings&) = delete;
  Strings& operator=(const Strings&) = delete;
  char** get() { return pointers_.data(); }

 private:
  std::vector<std::string> strings_;
  std::vector<char*> pointers_;
};

// This process's environment, with `settings` ("NAME=value") in place of its own values.
std::vector<std::string> environment_with(std::vector<std::string> settings) {
  const size_t count = settings.size();
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::string_view name = text.substr(0, text.find('=') + 1);
    if (std::none_of(settings.begin(), settings.begin() + static_cast<std::ptrdiff_t>(count),
                     [&](const std::string& setting) { return setting.starts_with(name); }))
      settings.emplace_back(text);
  }
  return settings;
}

// A group of its own, and nothing to read.
void part_from_terminal() {
  setpgid(0, 0);
  const int null = open("/dev/null", O_RDONLY);
  if (null > 0) dup2(null, 0);
  if (null > 0) close(null);
}

// Runs in the child, between fork and exec: system calls alone.
[[noreturn]] void become(const char* program, char** command, char** environment, pid_t parent, bool reads) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kCannotStart);  // the parent has died already
  if (!reads) part_from_terminal();
  execvpe(program, command, environment);
  _exit(kCannotStart);
}

class Supervisor {
 public:
  explicit Supervisor(const SupervisorOptions& options)
      : options_(options),
        token_(unguessable_word() + unguessable_word()),
        coordinator_({.host = kHost, .size = options.ranks, .token = token_, .timeout = options.timeout}) {}
  ~Supervisor() {
    signal_all(SIGKILL);
    for (Rank& rank : ranks_)
      if (!rank.status) waitpid(rank.pid, nullptr, 0);
  }
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  Outcome run();

 private:
  struct Rank {
    pid_t pid;
    bool grouped;               // its process group is its own
    std::optional<int> status;  // waitpid's, once the process has ended

    pid_t address() const { return grouped ? -pid : pid; }  // for signals
  };

  void start(int rank);
  void handle(int signal);
  void reap();
  void signal_all(int signal);
  bool running() const;
  bool some_stopped() const;
  int first_failed() const;
  void look_for_failure();
  void settle(Failure failure);
  std::string account_of(int rank) const;
  void press();
  Outcome outcome() const;

  const SupervisorOptions& options_;
  Signals signals_;
  const std::string token_;
  Coordinator coordinator_;
  std::vector<Rank> ranks_;
  int stop_signal_ = 0;
  std::optional<Failure> failure_;
  int pressure_ = 0;  // signals sent to the ranks after the failure: SIGTERM, then SIGKILL
  steady_clock::time_point press_at_;
};

Outcome Supervisor::run() {
  for (int rank = 0; rank < options_.ranks; ++rank) start(rank);
  while (running()) {
    handle(signals_.wait(kWatchTick));
    reap();
    if (failure_)
      press();
    else
      look_for_failure();
  }
  if (!failure_) look_for_failure();
  return outcome();
}

void Supervisor::start(int rank) {
  std::vector<std::string> settings = {fmt::format("RANK={}", rank),
                                       fmt::format("LOCAL_RANK={}", rank),
                                       fmt::format("WORLD_SIZE={}", options_.ranks),
                                       fmt::format("MASTER_ADDR={}", kHost),
                                       fmt::format("MASTER_PORT={}", coordinator_.port()),
                                       "MIXTUNE_SUPERVISED=1",
                                       fmt::format("MIXTUNE_TOKEN={}", token_)};
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  if (getenv("OMP_NUM_THREADS") == nullptr)
    settings.push_back(fmt::format("OMP_NUM_THREADS={}", std::max(1, cores / options_.ranks)));
  Strings command(options_.command), environment(environment_with(std::move(settings)));
  const std::string& program = options_.program.empty() ? options_.command[0] : options_.program;
  const bool reads = options_.first_reads && rank == 0;
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) throw Error(fmt::format("rank {}", rank), std::strerror(errno), "start fewer processes");
  if (pid == 0) become(program.c_str(), command.get(), environment.get(), parent, reads);
  if (!reads) setpgid(pid, pid);  // the child does so too: whichever is first
  ranks_.push_back({.pid = pid, .grouped = !reads, .status = {}});
}

void Supervisor::handle(int signal) {
  if (signal != SIGINT && signal != SIGTERM && signal != SIGUSR1) return;
  if (stop_signal_ == 0) {
    stop_signal_ = signal;
    if (signal == SIGINT) log_info("the ranks are told to stop; a second Ctrl-C ends them at once");
    signal_all(SIGTERM);
  } else if (signal == SIGINT) {
    signal_all(SIGKILL);
  }
}

// The rest of an ended rank's process group is killed first: until the rank is reaped, the group's number is its own.
void Supervisor::reap() {
  for (Rank& rank : ranks_) {
    siginfo_t info{};
    if (rank.status || waitid(P_PID, static_cast<id_t>(rank.pid), &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
        info.si_pid == 0)
      continue;
    if (rank.grouped) kill(-rank.pid, SIGKILL);
    int status = 0;
    waitpid(rank.pid, &status, 0);
    rank.status = status;
  }
}

// A stopped process takes a signal, other than SIGKILL, only when it goes on.
void Supervisor::signal_all(int signal) {
  for (const Rank& rank : ranks_) {
    if (rank.status) continue;
    kill(rank.address(), signal);
    kill(rank.address(), SIGCONT);
  }
}

bool Supervisor::running() const {
  return std::any_of(ranks_.begin(), ranks_.end(), [](const Rank& rank) { return !rank.status; });
}

bool Supervisor::some_stopped() const {
  return std::any_of(ranks_.begin(), ranks_.end(), [](const Rank& rank) { return has_stopped(*rank.status); });
}

// The rank that ended by a signal; else one that ended with a failure's code; else -1.
int Supervisor::first_failed() const {
  int failed = -1;
  for (int rank = std::ssize(ranks_) - 1; rank >= 0; --rank) {
    const int status = ranks_[static_cast<size_t>(rank)].status.value_or(0);
    if (status != 0 && !has_stopped(status) &&
        (failed < 0 || WIFSIGNALED(status) || !WIFSIGNALED(*ranks_[static_cast<size_t>(failed)].status)))
      failed = rank;
  }
  return failed;
}

void Supervisor::look_for_failure() {
  if (const auto failure = coordinator_.failure()) return settle(*failure);
  if (const int rank = first_failed(); rank >= 0) settle({.rank = rank, .connection_lost = true});
}

// waitpid tells more of a lost rank than the end of its connection.
void Supervisor::settle(Failure failure) {
  if (failure.connection_lost && failure.rank >= 0) {
    const Rank& rank = ranks_[static_cast<size_t>(failure.rank)];
    const auto deadline = steady_clock::now() + kReapTime;
    while (!rank.status && steady_clock::now() < deadline) {
      handle(signals_.wait(kWatchTick));
      reap();
    }
    if (rank.status) {
      failure.message = account_of(failure.rank);
      if (WIFEXITED(*rank.status)) failure.exit_code = std::max(1, WEXITSTATUS(*rank.status));
    }
  }
  coordinator_.fail(failure);
  failure_ = failure;
  press_at_ = steady_clock::now() + options_.grace;
}

std::string Supervisor::account_of(int rank) const {
  const int status = *ranks_[static_cast<size_t>(rank)].status;
  const std::string place = coordinator_.joined(rank) ? coordinator_.place(rank) : " before it joined";
  if (WIFSIGNALED(status))
    return fmt::format("rank {} was killed by signal {} ({}){}", rank, WTERMSIG(status), strsignal(WTERMSIG(status)),
                       place);
  if (status == 0) return fmt::format("rank {} ended before the job was done{}", rank, place);
  return fmt::format("rank {} ended with exit code {}{}", rank, WEXITSTATUS(status), place);
}

// Signals ranks that do not end by themselves.
void Supervisor::press() {
  if (steady_clock::now() < press_at_) return;
  signal_all(pressure_++ == 0 ? SIGTERM : SIGKILL);
  press_at_ = steady_clock::now() + options_.grace / 3;
}

Outcome Supervisor::outcome() const {
  if (stop_signal_ != 0) {
    std::string message = fmt::format("stopped by signal {} ({})", stop_signal_, strsignal(stop_signal_));
    if (failure_ && !failure_->connection_lost) message += "; " + failure_->message;
    return {.exit_code = !failure_ && some_stopped() ? kStopped : 128 + stop_signal_, .message = message};
  }
  if (failure_) return {.exit_code = failure_->exit_code, .message = failure_->message};
  if (some_stopped()) return {.exit_code = kStopped, .message = "stopped by a signal to its ranks"};
  return {};
}

}  // namespace

Outcome supervise(const SupervisorOptions& options) {
  MT_CHECK(options.ranks > 0 && !options.command.empty());
  return Supervisor(options).run();
}

}  // namespace mixtune
