#include "train/output_folder.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "base/error.h"
#include "base/output_file.h"
#include "base/staged.h"
#include "checkpoint/run_folder.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kCheckpoint = "checkpoint-";
constexpr const char *kMetrics = "metrics.jsonl", *kConfig = "config.resolved.yaml", *kTrace = "trace.json";
constexpr std::array<const char*, 4> kFiles = {kLatestFile, kMetrics, kConfig, kTrace};

// Steps of the checkpoints in a folder, from the oldest on.
std::vector<int64_t> checkpoint_steps(const std::string& folder) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    if (const auto step = checkpoint_step(entry->path().filename().string())) steps.push_back(*step);
  std::ranges::sort(steps);
  return steps;
}

// Checks that the nearest existing folder on the way to `path` can be written.
void check_place(const std::string& path) {
  for (std::string place = path;; place = parent_folder(place)) {
    std::error_code error;
    const fs::file_status status = fs::status(place, error);
    if (!fs::exists(status) && place != "/" && place != ".") continue;
    if (!fs::is_directory(status))
      throw UserError(printable_path(path),
                      place == path ? "is a file, not a folder" : fmt::format("{} is a file", printable_path(place)),
                      "choose another output_dir");
    if (access(place.c_str(), W_OK | X_OK) != 0)
      throw UserError(printable_path(path),
                      fmt::format("{} cannot be written: {}", printable_path(place), std::strerror(errno)),
                      "choose another output_dir");
    return;
  }
}

// Whether `path` is `folder` or lies in it, whatever links lead there.
bool is_within(const fs::path& path, const fs::path& folder) {
  std::error_code error;
  const fs::path inner = fs::weakly_canonical(path, error), outer = fs::weakly_canonical(folder, error);
  return !error && std::ranges::mismatch(outer, inner).in1 == outer.end();
}

// The name of something that a run has left, or that it would replace; "" where there is nothing. An empty
// metrics.jsonl is that of a run that ended before its first record: the files beside it are that run's own.
std::string result_in(const std::string& path) {
  std::error_code error;
  const auto kind = [&](const char* name) {
    return fs::symlink_status(path + "/" + name, error).type();
  };
  const auto is_there = [&](const char* name) {
    return fs::exists(fs::file_status(kind(name)));
  };
  const bool recorded_nothing =
      kind(kMetrics) == fs::file_type::regular && fs::file_size(path + "/" + kMetrics, error) == 0;
  if (const std::vector<int64_t> steps = checkpoint_steps(path); !steps.empty()) return checkpoint_name(steps.back());
  if (is_there(kLatestFile)) return kLatestFile;
  if (recorded_nothing) return "";
  for (const char* name : kFiles)
    if (is_there(name)) return name;
  return "";
}

void check_inputs(const OutputRequest& request) {
  std::error_code error;
  for (const std::string& input : request.inputs) {
    if (fs::is_directory(input, error) && is_within(request.path, input))
      throw UserError(printable_path(request.path),
                      fmt::format("lies in {}, which the run reads", printable_path(input)),
                      "choose an output_dir of its own");
    for (const char* file : kFiles)
      if (fs::equivalent(input, request.path + "/" + file, error))
        throw UserError(printable_path(request.path),
                        fmt::format("the run reads {}, which it would replace", printable_path(input)),
                        "choose another output_dir");
    for (const int64_t step : checkpoint_steps(request.path))
      if (is_within(input, request.path + "/" + checkpoint_name(step)))
        throw UserError(printable_path(request.path),
                        fmt::format("the run reads {}, which it would remove", printable_path(input)),
                        "choose another output_dir");
  }
}

void check_results(const OutputRequest& request) {
  if (request.overwrite) return;
  if (const std::string result = result_in(request.path); !result.empty())
    throw UserError(printable_path(request.path), fmt::format("holds the results of another run ({})", result),
                    "choose another output_dir, or set overwrite_output_dir: true to replace them");
}

void remove_file(const std::string& path) {
  std::error_code error;
  fs::remove(path, error);  // removes a link, not its target
  if (error)
    throw UserError(printable_path(path), fmt::format("cannot be removed: {}", error.message()),
                    "choose another output_dir");
}

OutputRequest checked(OutputRequest request) {
  check_output_folder(request);
  request.path = without_trailing_slash(request.path);
  return request;
}

}  // namespace

void check_output_folder(const OutputRequest& request) {
  check_place(without_trailing_slash(request.path));
  check_inputs(request);
  check_unclaimed(request.path);
  check_results(request);
}

// Looks for results again: another run may have ended between the first look and the lock.
OutputFolder::OutputFolder(const OutputRequest& request) : request_(checked(request)), claim_(request_.path) {
  check_results(request_);
}

void OutputFolder::begin() {
  check_results(request_);
  claim_.keep();
  remove_stale(path(), kCheckpoint);
  for (const char* name : kFiles) {
    remove_stale(path(), name);
    remove_file(file(name));
  }
  for (const int64_t step : checkpoint_steps(path())) remove_whole(checkpoint_path(step));
}

std::string OutputFolder::metrics_path() const {
  return file(kMetrics);
}

std::string OutputFolder::trace_path() const {
  return file(kTrace);
}

std::string OutputFolder::checkpoint_path(int64_t step) const {
  return path() + "/" + checkpoint_name(step);
}

void OutputFolder::write_config(std::string_view text) const {
  write_whole_file(file(kConfig), text, Existing::kRefused);
}

void OutputFolder::write_latest(int64_t step) const {
  write_whole_file(file(kLatestFile), checkpoint_name(step) + "\n", Existing::kReplaced);
}

void OutputFolder::prune(int64_t save_total_limit) const {
  if (save_total_limit <= 0) return;
  const std::vector<int64_t> steps = checkpoint_steps(path());
  const auto limit = static_cast<size_t>(save_total_limit);
  for (size_t i = 0; i + limit < steps.size(); ++i) remove_whole(checkpoint_path(steps[i]));
}

}  // namespace mixtune
