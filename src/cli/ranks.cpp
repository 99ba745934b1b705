#include "cli/ranks.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <new>
#include <sstream>

#include <CLI/CLI.hpp>

#include "base/file.h"
#include "base/library.h"
#include "base/log.h"
#include "base/random.h"
#include "cli/command.h"
#include "config/load.h"
#include "job/supervisor.h"
#include "tensor/out_of_memory.h"
#include "train/instance_options.h"

namespace mixtune {

namespace {

std::chrono::milliseconds timeout_of(const Config& config) {
  return std::chrono::milliseconds(static_cast<int64_t>(config.parallel.collective_timeout * 1e3));
}

// The words of this process's command line without --nproc and its number.
std::vector<std::string> command_of_a_rank() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words(1);
  std::string word;
  std::getline(file, words[0], '\0');
  while (std::getline(file, word, '\0')) {
    if (word == "--nproc")
      std::getline(file, word, '\0');
    else if (!word.starts_with("--nproc="))
      words.push_back(word);
  }
  return words;
}

// A launcher's process would be the one that it says it started.
bool is_command_at_terminal() {
  const char* task = std::getenv("SLURM_TASK_PID");
  return isatty(STDIN_FILENO) == 1 && (task == nullptr || task != std::to_string(getpid()));
}

// How this process ends where the job has failed elsewhere. Its supervisor tells why, or rank 0 does.
void end_with(const Launch& launch, const Failure& failure) {
  if (!launch.supervised && (launch.rank == 0 || failure.rank < 0)) log_line("mixtune: error", failure.message);
  std::_Exit(failure.exit_code);
}

std::string hash_of_program() {
  constexpr uint64_t kPiece = 4 << 20;
  const InputFile file("/proc/self/exe");
  uint64_t key = 0;
  for (uint64_t done = 0; done < file.size(); done += kPiece)
    key = random_key(key, file.read(done, std::min(kPiece, file.size() - done)));
  return fmt::format("{:x}", key);
}

[[noreturn]] void fail(Job& job, const Launch& launch, const std::string& message, ExitCode code) {
  const Failure failure = job.fail(message, static_cast<int>(code));
  if (launch.supervised || launch.rank != 0) throw Ended{failure.exit_code};
  throw Error("", failure.message, "", static_cast<ExitCode>(failure.exit_code));
}

}  // namespace

void add_nproc(CLI::App& app, int& ranks) {
  app.add_option("--nproc", ranks, "Start this many ranks on this machine, on GPUs one each, and run on all of them")
      ->type_name("N")
      ->check(CLI::Range(1, 1024));
}

std::optional<Launch> launch_of_process(int nproc) {
  Start start = start_from([](const char* name) { return std::getenv(name); },
                           {.nproc = nproc, .at_terminal = is_command_at_terminal()});
  if (!start.ignored.empty() && (!start.rank || start.rank->rank == 0)) log_warning("{}", start.ignored);
  return start.rank;
}

RankGrid grid_of(const Config& config, int64_t experts, int ranks, int rank) {
  return make_rank_grid(ranks, rank, static_cast<int>(config.parallel.expert_model_parallel_size), experts,
                        config.where("expert_model_parallel_size"));
}

void check_gpus(const Config& config, int count) {
  if (choose_device(config.machine.device).type == DeviceType::kCuda && gpu_count() < count)
    throw UserError("--nproc", fmt::format("{} ranks need a GPU each, and CUDA can use {}", count, gpu_count()),
                    "start fewer, or set device: cpu");
}

void supervise_ranks(const Config& config, int count) {
  const Outcome outcome = supervise(
      {.program = "/proc/self/exe", .command = command_of_a_rank(), .ranks = count, .timeout = timeout_of(config)});
  if (outcome.exit_code == 0) return;
  const bool has_spoken = outcome.message.empty() || outcome.exit_code == static_cast<int>(ExitCode::kStopped);
  if (has_spoken) throw Ended{outcome.exit_code};  // rank 0 has said why they were stopped
  throw Error("", outcome.message, "", static_cast<ExitCode>(outcome.exit_code));
}

void run_as_rank(const Config& config, const Launch& launch, const std::function<Ranks(Job&)>& connect,
                 const std::function<void(const Ranks&)>& run) {
  if (launch.rank != 0) setenv(kLogVariable, "error", 1);  // rank 0 says the same
  const char* token = std::getenv("MIXTUNE_TOKEN");
  Job job({.launch = launch,
           .token = token ? token : "",
           .timeout = timeout_of(config),
           .on_failure = [&launch](const Failure& failure) {
             end_with(launch, failure);
           }});
  std::optional<Ranks> ranks;  // the others are to hear of a failure before they lose their connections
  try {
    ranks = connect(job);
    run(*ranks);
  } catch (const OutOfMemory& error) {
    fail(job, launch, fmt::format("{}; {}", error.what(), kLessMemory), error.exit_code());
  } catch (const Error& error) {
    fail(job, launch, error.what(), error.exit_code());
  } catch (const std::bad_alloc&) {
    fail(job, launch, fmt::format("out of memory; {}", kLessMemory), ExitCode::kFailed);
  } catch (const std::exception& error) {
    fail(job, launch, error.what(), ExitCode::kFailed);
  }
}

std::string hash_of_text(std::string_view text) {
  return fmt::format("{:x}", random_key(0, text));
}

Entries fingerprint(const Config& config, Device device, int ranks) {
  Entries entries = {{"program", hash_of_program()}};
  std::istringstream keys(print_config(config));
  for (std::string line; std::getline(keys, line);) {
    const size_t colon = line.find(':');
    entries[fmt::format("setting {}", line.substr(0, colon))] = line.substr(std::min(colon + 1, line.size()));
  }
  entries["kind of device"] = device.type == DeviceType::kCuda ? "GPU" : "CPU";
  if (device.type == DeviceType::kCuda && ranks > 1) {
    entries["GPU driver"] = fmt::format("{}", gpu_info(device.index).driver);
    entries["version of NCCL"] = library_version(CudaLibrary::kNccl, open_library(CudaLibrary::kNccl));
  }
  return entries;
}

}  // namespace mixtune
