#include "cli/train_ranks.h"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>

#include "base/file.h"
#include "base/log.h"
#include "base/random.h"
#include "cli/command.h"
#include "config/load.h"
#include "model/mixtral_config.h"
#include "parallel/job.h"
#include "parallel/supervisor.h"
#include "train/loop.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

std::chrono::milliseconds timeout_of(const Config& config) {
  return std::chrono::milliseconds(static_cast<int64_t>(config.parallel.collective_timeout * 1e3));
}

RankGrid grid_of(const Config& config, const MixtralConfig& model, int ranks) {
  return make_rank_grid(ranks, 0, static_cast<int>(config.parallel.expert_model_parallel_size), model.num_local_experts,
                        config.where("expert_model_parallel_size"));
}

// The words of this process's command line, the program first, without --nproc and its number.
std::vector<std::string> command_of_a_rank() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words = {"/proc/self/exe"};
  std::string word;
  std::getline(file, word, '\0');
  while (std::getline(file, word, '\0')) {
    if (word == "--nproc")
      std::getline(file, word, '\0');
    else if (!word.starts_with("--nproc="))
      words.push_back(word);
  }
  return words;
}

std::string sizes_of_files(const std::string& folder, std::string_view extension) {
  std::map<std::string, uintmax_t> sizes;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == extension) sizes[entry.path().filename().string()] = fs::file_size(entry.path());
  std::string text;
  for (const auto& [name, size] : sizes) text += fmt::format("{} {}\n", name, size);
  return text;
}

std::string hash_of_file(const std::string& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  return fmt::format("{:x}", random_key(0, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
}

// What ranks must have in common, by its name in messages.
std::map<std::string, std::string> fingerprint(const Config& config) {
  const std::string& model = config.model.model_name_or_path;
  std::string data;
  for (const std::string& path : config.data.train_file) data += fmt::format("{}\n", fs::file_size(path));
  return {{"program", hash_of_file("/proc/self/exe")},
          {"configuration", print_config(config)},
          {"checkpoint", hash_of_file(model + "/config.json") + "\n" + sizes_of_files(model, ".safetensors")},
          {"train_file", data}};
}

// How this process ends where the job has failed elsewhere. Its supervisor tells why, or rank 0 does.
void end_with(const Launch& launch, const Failure& failure) {
  if (!launch.supervised && (launch.rank == 0 || failure.rank < 0)) log_line("mixtune: error", failure.message);
  std::_Exit(failure.exit_code);
}

[[noreturn]] void fail(Job& job, const Launch& launch, const std::string& message, ExitCode code) {
  const Failure failure = job.fail(message, static_cast<int>(code));
  if (launch.supervised || launch.rank != 0) throw Ended{failure.exit_code};
  throw Error("", failure.message, "", static_cast<ExitCode>(failure.exit_code));
}

}  // namespace

void supervise_ranks(const Config& config, int count) {
  Config checked = config;
  resolve_global_batch_size(checked, count);
  grid_of(config, load_mixtral_config(config.model.model_name_or_path), count);
  const Outcome outcome = supervise({.command = command_of_a_rank(), .ranks = count, .timeout = timeout_of(config)});
  if (outcome.exit_code == 0) return;
  if (outcome.message.empty()) throw Ended{outcome.exit_code};
  throw Error("", outcome.message, "", static_cast<ExitCode>(outcome.exit_code));
}

void train_as_rank(const Config& given, const Launch& launch, bool profile) {
  if (launch.rank != 0) setenv(kLogVariable, "error", 1);  // rank 0 says the same
  const char* token = std::getenv("MIXTUNE_TOKEN");
  Job job({.launch = launch,
           .token = token ? token : "",
           .timeout = timeout_of(given),
           .on_failure = [&launch](const Failure& failure) {
             end_with(launch, failure);
           }});
  std::optional<Ranks> ranks;  // the others are to hear of a failure before they lose their connections
  try {
    Config config = given;
    resolve_global_batch_size(config, launch.size);
    job.compare(fingerprint(given));
    const MixtralConfig model = load_mixtral_config(config.model.model_name_or_path);
    ranks = job.connect(grid_of(config, model, launch.size).expert_parallel, model.num_local_experts,
                        config.where("expert_model_parallel_size"));
    train(config, profile, &*ranks);
  } catch (const Error& error) {
    fail(job, launch, error.what(), error.exit_code());
  } catch (const std::exception& error) {
    fail(job, launch, error.what(), ExitCode::kFailed);
  }
}

}  // namespace mixtune
