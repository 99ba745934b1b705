#include "checkpoint/output_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/log.h"
#include "base/output_file.h"
#include "base/staged.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kCheckpoint = "checkpoint-";
constexpr const char* kLatest = "latest";
constexpr const char* kMetrics = "metrics.jsonl";
constexpr const char* kLock = ".lock";
constexpr std::array<const char*, 4> kFiles = {kLatest, kMetrics, "config.resolved.yaml", "trace.json"};

std::string shown(const std::string& path) {
  return printable(path, 400);
}

std::optional<int64_t> checkpoint_step(std::string_view name) {
  if (!name.starts_with(kCheckpoint)) return {};
  name.remove_prefix(kCheckpoint.size());
  int64_t step = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size() || step < 0) return {};
  if (std::to_string(step) != name) return {};  // "007" is no name of ours
  return step;
}

// Steps of the checkpoints in a folder, from the oldest on.
std::vector<int64_t> checkpoint_steps(const std::string& folder) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    if (const auto step = checkpoint_step(entry->path().filename().string())) steps.push_back(*step);
  std::ranges::sort(steps);
  return steps;
}

std::string checkpoint_name(int64_t step) {
  return fmt::format("{}{}", kCheckpoint, step);
}

// The nearest folder on the way to `path` that exists must be a folder that can be written.
void check_place(const std::string& path) {
  for (std::string place = path;; place = parent_folder(place)) {
    std::error_code error;
    const fs::file_status status = fs::status(place, error);
    if (!fs::exists(status) && place != "/" && place != ".") continue;
    if (!fs::is_directory(status))
      throw UserError(shown(path),
                      place == path ? "is a file, not a folder" : fmt::format("{} is a file", shown(place)),
                      "choose another output_dir");
    if (access(place.c_str(), W_OK | X_OK) != 0)
      throw UserError(shown(path), fmt::format("{} cannot be written: {}", shown(place), std::strerror(errno)),
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

bool has_results(const std::string& path) {
  std::error_code missing;
  const std::string metrics = path + "/" + kMetrics;
  return !checkpoint_steps(path).empty() || fs::exists(path + "/" + kLatest, missing) ||
         (fs::exists(metrics, missing) && fs::file_size(metrics, missing) > 0);
}

void check_inputs(const OutputRequest& request) {
  std::error_code error;
  for (const std::string& input : request.inputs) {
    if (fs::is_directory(input, error) && is_within(request.path, input))
      throw UserError(shown(request.path), fmt::format("lies in {}, which the run reads", shown(input)),
                      "choose an output_dir of its own");
    for (const char* file : kFiles)
      if (fs::equivalent(input, request.path + "/" + file, error))
        throw UserError(shown(request.path), fmt::format("the run reads {}, which it would replace", shown(input)),
                        "choose another output_dir");
    for (const int64_t step : checkpoint_steps(request.path))
      if (is_within(input, request.path + "/" + checkpoint_name(step)))
        throw UserError(shown(request.path), fmt::format("the run reads {}, which it would remove", shown(input)),
                        "choose another output_dir");
  }
}

void check_results(const OutputRequest& request) {
  if (request.overwrite || !has_results(request.path)) return;
  throw UserError(shown(request.path), "holds the results of another run",
                  "choose another output_dir, or set overwrite_output_dir: true to replace them");
}

// Locks an open lock file; false, where file systems have no locks. Throws if another run holds it.
bool lock_file(int fd, const std::string& path) {
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return true;
  if (errno != EWOULDBLOCK) return false;
  std::array<char, 20> owner{};
  const ssize_t size = pread(fd, owner.data(), owner.size(), 0);
  const std::string_view pid(owner.data(), static_cast<size_t>(std::max<ssize_t>(size, 0)));
  throw UserError(
      shown(path),
      pid.empty() ? "another run is using it" : fmt::format("another run is using it (process {})", printable(pid)),
      "choose another output_dir, or wait until that run has ended");
}

void check_unlocked(const std::string& path) {
  const Fd lock(open((path + "/" + kLock).c_str(), O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC));
  if (lock.get() >= 0) lock_file(lock.get(), path);
}

// Makes the folder and opens its lock file.
int open_lock(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error)
    throw UserError(shown(path), fmt::format("cannot be made: {}", error.message()), "choose another output_dir");
  const int fd = open((path + "/" + kLock).c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
  if (fd < 0)
    throw UserError(shown(path), fmt::format("cannot be written: {}", std::strerror(errno)),
                    "choose another output_dir");
  return fd;
}

void write_owner(int fd, const std::string& path) {
  const std::string pid = std::to_string(getpid());
  if (ftruncate(fd, 0) != 0 || pwrite(fd, pid.data(), pid.size(), 0) < 0)
    throw Error(shown(path), fmt::format("cannot be written: {}", std::strerror(errno)), "choose another output_dir");
}

std::string checked_path(const OutputRequest& request) {
  check_output_folder(request);
  return without_trailing_slash(request.path);
}

}  // namespace

void check_output_folder(const OutputRequest& request) {
  check_place(without_trailing_slash(request.path));
  check_inputs(request);
  check_unlocked(request.path);
  check_results(request);
}

OutputFolder::OutputFolder(const OutputRequest& request) : path_(checked_path(request)), lock_(open_lock(path_)) {
  if (!lock_file(lock_.get(), path_))
    log_warning("{}: the file system has no locks: start no second run with this output_dir", shown(path_));
  write_owner(lock_.get(), path_);
  check_results(request);  // again: another run may have ended between the first look and the lock
  for (const std::string_view ours : {kCheckpoint, std::string_view(kLatest)}) remove_stale(path_, ours);
  if (!request.overwrite) return;
  std::error_code error;
  for (const char* name : kFiles) fs::remove(file(name), error);
  for (const int64_t step : checkpoint_steps(path_)) remove_whole(checkpoint_path(step));
}

std::string OutputFolder::checkpoint_path(int64_t step) const {
  return path_ + "/" + checkpoint_name(step);
}

void OutputFolder::write_latest(int64_t step) const {
  StagedPath latest(file(kLatest));
  write_file(latest.path(), checkpoint_name(step) + "\n");
  latest.commit();
}

void OutputFolder::prune(int64_t save_total_limit) const {
  if (save_total_limit <= 0) return;
  const std::vector<int64_t> steps = checkpoint_steps(path_);
  const auto limit = static_cast<size_t>(save_total_limit);
  for (size_t i = 0; i + limit < steps.size(); ++i) remove_whole(checkpoint_path(steps[i]));
}

}  // namespace mixtune
