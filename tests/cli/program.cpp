#include "program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <thread>

#include "base/test_paths.h"

namespace mixtune {

namespace fs = std::filesystem;

namespace {

constexpr const char* kModel = R"({
  "model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "vocab_size": 4096, "hidden_size": 16,
  "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
  "num_local_experts": 2, "num_experts_per_tok": 1, "max_position_embeddings": 128, "rope_theta": 10000.0,
  "rms_norm_eps": 1e-05, "router_aux_loss_coef": 0.02, "bos_token_id": 1, "eos_token_id": 2,
  "tie_word_embeddings": false, "torch_dtype": "float32"
})";

// This process's environment without a launcher's variables (srun's, say), which programs would take for their own. The
// cache is one of this process, but on GPUs, where measuring its content anew takes long.
std::vector<char*> environment() {
  static const TempFolder folder;
  static std::string cache = "XDG_CACHE_HOME=" + folder.path().string();
  constexpr auto kLeftOut = std::to_array<std::string_view>(
      {"RANK=", "WORLD_SIZE=", "LOCAL_", "MASTER_", "GROUP_", "ROLE_", "SLURM_", "OMPI_", "PMI", "MV2_", "PET_",
       "TORCHELASTIC_", "KUBERNETES_", "MIXTUNE_LOG=", "MIXTUNE_SUPERVISED=", "MIXTUNE_TOKEN="});
  std::vector<char*> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const auto begins = [text = std::string_view(*variable)](std::string_view start) {
      return text.starts_with(start);
    };
    if (std::ranges::none_of(kLeftOut, begins) && (on_gpus() || !begins("XDG_CACHE_HOME=")))
      variables.push_back(*variable);
  }
  if (!on_gpus()) variables.push_back(cache.data());
  variables.push_back(nullptr);
  return variables;
}

// Starts the program whose path is args[0].
pid_t spawn(std::vector<std::string> args, const fs::path& folder, const fs::path& out, const fs::path& err) {
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  argv.push_back(nullptr);
  if (!on_gpus()) setenv("CUDA_VISIBLE_DEVICES", "", 1);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  // A shell that runs the tests in the background makes them ignore signals that interrupt.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t interrupts;
  sigemptyset(&interrupts);
  sigaddset(&interrupts, SIGINT);
  posix_spawnattr_setsigdefault(&attributes, &interrupts);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  pid_t child = 0;
  const int error = posix_spawn(&child, argv[0], &actions, &attributes, argv.data(), environment().data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw std::runtime_error(fmt::format("cannot start {}", args[0]));
  return child;
}

Outcome run_program(const std::vector<std::string>& args, const fs::path& folder, double limit) {
  using Clock = std::chrono::steady_clock;
  const TempFolder output;
  const auto start = Clock::now();
  const auto elapsed = [&] {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  const pid_t child = spawn(args, folder, output.path() / "out", output.path() / "err");
  int status = 0;
  while (waitpid(child, &status, WNOHANG) == 0) {
    if (elapsed() > limit) {
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return {.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1,
          .out = read(output.path() / "out"),
          .err = read(output.path() / "err"),
          .seconds = elapsed()};
}

}  // namespace

bool on_gpus() {
  const char* device = std::getenv("MIXTUNE_TEST_DEVICE");
  return device != nullptr && std::string_view(device) == "cuda";
}

int promised_gpus() {
  const char* promised = std::getenv("MIXTUNE_REQUIRE_GPU");
  return promised != nullptr ? std::atoi(promised) : 1;
}

const std::string& mixtune_program() {
  static const std::string path = program_path("mixtune");
  return path;
}

Outcome run_mixtune(std::vector<std::string> args, const fs::path& folder, double limit) {
  args.insert(args.begin(), mixtune_program());
  return run_program(args, folder, limit);
}

Outcome run_shell(const std::string& script, const fs::path& folder, double limit) {
  return run_program({"/bin/sh", "-c", script, mixtune_program()}, folder, limit);
}

std::map<std::string, std::string> snapshot(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder))
    files[entry.path().string()] = entry.is_regular_file() ? read(entry.path())
                                   : entry.is_directory()  ? "folder"
                                                           : "other";
  return files;
}

void write(const fs::path& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary);
  file << content;
  if (!file.flush()) throw std::runtime_error(fmt::format("cannot write {}", path.string()));
}

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

void expect_part(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), text.npos) << "no '" << part << "' in: " << text;
}

void make_model(const fs::path& folder) {
  const TempFolder shape;
  write(shape.path() / "model.json", kModel);
  const Outcome outcome = run_mixtune({"init", (shape.path() / "model.json").string(), folder.string(), "--tokenizer",
                                       source_path("examples/quickstart")},
                                      shape.path());
  if (outcome.code != 0) throw std::runtime_error("mixtune init failed: " + outcome.err);
}

}  // namespace mixtune
