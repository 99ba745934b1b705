// Runs the built program and tells what it did.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/temp_folder.h"

namespace mixtune {

struct Outcome {
  int code = -1;  // of exit; -1: ended by a signal or out of time
  std::string out, err;
  double seconds = 0;
};

// Whether MIXTUNE_TEST_DEVICE=cuda. Otherwise programs see no GPU: the tests are then the same on every machine.
bool on_gpus();
// How many GPUs MIXTUNE_REQUIRE_GPU then promises.
int promised_gpus();

// The path of the built program.
const std::string& mixtune_program();

// Runs `mixtune args...` in `folder`, for at most `limit` seconds.
Outcome run_mixtune(std::vector<std::string> args, const std::filesystem::path& folder, double limit = 60);

// Runs a script of the shell in which "$0" is mixtune: for what only a caller can do, such as closing a file.
Outcome run_shell(const std::string& script, const std::filesystem::path& folder, double limit = 60);

// The content of every file below `folder`, by its path; folders and special files appear by their kind.
std::map<std::string, std::string> snapshot(const std::filesystem::path& folder);

void write(const std::filesystem::path& path, const std::string& content);
std::string read(const std::filesystem::path& path);
std::vector<std::string> lines_of(const std::string& text);
void expect_part(const std::string& text, const std::string& part);

inline constexpr size_t kHidden = 16;  // of make_model
// Makes `folder` a checkpoint with random weights and the tokeniser of examples/quickstart.
void make_model(const std::filesystem::path& folder);

}  // namespace mixtune
