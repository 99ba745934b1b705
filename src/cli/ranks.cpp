#include "cli/ranks.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <new>
#include <sstream>
#include <string_view>
#include <system_error>

#include <CLI/CLI.hpp>

#include "base/contained.h"
#include "base/file.h"
#include "base/library.h"
#include "base/log.h"
#include "base/random.h"
#include "checkpoint/adapter_config.h"
#include "cli/command.h"
#include "config/load.h"
#include "job/supervisor.h"
#include "model/mixtral_config.h"
#include "tensor/out_of_memory.h"
#include "train/instance_options.h"

namespace mixtune {

namespace {

std::chrono::milliseconds timeout_of(const Config& config) {
  return std::chrono::milliseconds(static_cast<int64_t>(config.parallel.collective_timeout * 1e3));
}

// The words of this process's command line. Its ranks do not heed --nproc.
std::vector<std::string> command_of_a_rank() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  return words;
}

bool is_supervised() {
  const char* supervised = std::getenv("MIXTUNE_SUPERVISED");
  return supervised != nullptr && std::string_view(supervised) == "1";
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

// Throws UserError where `count` ranks of this machine would have no GPU each, and are not to compute on CPUs.
void check_gpus(const Config& config, int count) {
  if (choose_device(config.machine.device).type == DeviceType::kCuda && gpu_count() < count)
    throw UserError("--nproc", fmt::format("{} ranks need a GPU each, and CUDA can use {}", count, gpu_count()),
                    "start fewer, or set device: cpu");
}

// Runs this process's command line as `count` ranks, and waits for them. Throws Error with the job's one
// message where it failed.
void supervise_ranks(const Config& config, int count, bool reads_input) {
  const Outcome outcome = supervise({.program = "/proc/self/exe",
                                     .command = command_of_a_rank(),
                                     .ranks = count,
                                     .first_reads = reads_input,
                                     .timeout = timeout_of(config)});
  if (outcome.exit_code == 0) return;
  const bool has_spoken = outcome.message.empty() || outcome.exit_code == static_cast<int>(ExitCode::kStopped);
  if (has_spoken) throw Ended{outcome.exit_code};  // rank 0 has said why they were stopped
  throw Error("", outcome.message, "", static_cast<ExitCode>(outcome.exit_code));
}

// Joins the job as the rank that `launch` says. connect(job) compares what ranks must have in common, and connects
// them; run(ranks) is the rest. Throws Ended where the job failed and another process tells why.
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

constexpr size_t kMaxConfigBytes = 1 << 20;

std::string sizes_of_weights(const std::string& folder) {
  std::string text;
  for (const std::string& name : regular_files(folder)) {
    std::error_code gone;
    if (name.ends_with(".safetensors"))
      text += fmt::format("{} {}\n", name, std::filesystem::file_size(folder + "/" + name, gone));
  }
  return text;
}

}  // namespace

void add_nproc(CLI::App& app, int& ranks) {
  app.add_option("--nproc", ranks, "Start this many ranks on this machine, on GPUs one each, and run on all of them")
      ->type_name("N")
      ->check(CLI::Range(1, 1024));
}

std::optional<Launch> launch_of_process(int nproc) {
  Start start = start_from([](const char* name) { return std::getenv(name); },
                           {.nproc = is_supervised() ? 0 : nproc, .at_terminal = is_command_at_terminal()});
  if (!start.ignored.empty() && (!start.rank || start.rank->rank == 0)) log_warning("{}", start.ignored);
  return start.rank;
}

RankGrid grid_of(const Config& config, int64_t experts, int ranks, int rank) {
  return make_rank_grid(ranks, rank, static_cast<int>(config.parallel.expert_model_parallel_size), experts,
                        config.where("expert_model_parallel_size"));
}

Ranks coming_ranks(const std::optional<Launch>& launch, int nproc) {
  const RankGrid grid =
      launch ? RankGrid{.world = launch->size, .rank = launch->rank} : RankGrid{.world = std::max(nproc, 1)};
  Ranks ranks = planned_ranks(grid);
  ranks.device.reset();  // this process's own
  return ranks;
}

bool leads(const std::optional<Launch>& launch) {
  return !launch || (launch->rank == 0 && !launch->supervised);
}

Silence::Silence(bool silent) : silent_(silent) {
  if (!silent_) return;
  if (const char* before = std::getenv(kLogVariable)) before_ = before;
  setenv(kLogVariable, "error", 1);
}

Silence::~Silence() {
  if (!silent_) return;
  before_ ? setenv(kLogVariable, before_->c_str(), 1) : unsetenv(kLogVariable);
}

void run_on_ranks(const RankWork& work, const std::function<void(const Ranks&)>& run) {
  const Config& config = work.config;
  if (work.launch) {
    const Launch& launch = *work.launch;
    const auto connect = [&](Job& job) {
      const Device device = choose_device(config.machine.device, launch.local_rank);
      Entries entries = fingerprint(config, device, launch.size);
      entries.merge(work.entries());
      job.compare(entries);
      return job.connect(device, grid_of(config, work.experts(), launch.size, launch.rank));
    };
    return run_as_rank(config, launch, connect, run);
  }
  if (work.nproc > 1) {
    grid_of(config, work.experts(), work.nproc);
    check_gpus(config, work.nproc);
    return supervise_ranks(config, work.nproc, work.reads_input);
  }
  grid_of(config, 1, 1);  // there are no ranks to spread experts over
  run(single_rank());
}

Entries entries_of_model(const std::string& folder, const std::string& adapter) {
  Entries entries = {{"checkpoint", hash_of_text(read_config_json(folder)) + "\n" + sizes_of_weights(folder)}};
  if (adapter.empty()) return entries;
  const std::string config = path_within(adapter, kAdapterConfigFile);
  entries["adapter"] = hash_of_text(read_small_file(config, kMaxConfigBytes, "give an adapter's folder")) + "\n" +
                       sizes_of_weights(adapter);
  return entries;
}

std::string hash_of_text(std::string_view text) {
  return fmt::format("{:x}", random_key(0, text));
}

}  // namespace mixtune
