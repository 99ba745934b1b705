#include "base/staged.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/output_file.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMark = ".tmp-";

std::string temporary_name(const std::string& path) {
  return fmt::format("{}/.{}{}{}", parent_folder(path), fs::path(path).filename().string(), kMark, getpid());
}

// The process that made a temporary name, or none if it is not one.
std::optional<pid_t> maker(std::string_view name) {
  const size_t mark = name.rfind(kMark);
  if (mark == std::string_view::npos) return {};
  const std::string_view digits = name.substr(mark + kMark.size());
  pid_t pid = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), pid);
  if (error != std::errc() || end != digits.data() + digits.size() || pid <= 0) return {};
  return pid;
}

bool runs_elsewhere(pid_t pid) {
  return pid != getpid() && (kill(pid, 0) == 0 || errno == EPERM);
}

void move(const std::string& from, const std::string& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) throw Error(to, fmt::format("cannot be put in place: {}", error.message()), "check the folder it is in");
}

}  // namespace

StagedPath::StagedPath(const std::string& final_path)
    : final_path_(without_trailing_slash(final_path)), path_(temporary_name(final_path_)) {
  remove_stale(parent_folder(final_path_), fmt::format("{}{}", fs::path(final_path_).filename().string(), kMark));
}

StagedPath::~StagedPath() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(path_, ignored);
}

void StagedPath::commit() {
  move(path_, final_path_);
  committed_ = true;
  sync_folder(parent_folder(final_path_));
}

StagedFolder::StagedFolder(const std::string& final_path) : staged_(final_path) {
  std::error_code error;
  if (fs::exists(fs::symlink_status(without_trailing_slash(final_path), error)))
    throw UserError(printable(final_path, 400), "exists already", "choose another name or remove it");
  fs::create_directory(path(), error);
  if (error)
    throw UserError(printable(final_path, 400), fmt::format("cannot be made: {}", error.message()),
                    "choose a place that exists and can be written");
}

void StagedFolder::commit() {
  sync_folder(path());
  staged_.commit();
}

void remove_whole(const std::string& path) {
  const std::string temporary = temporary_name(path);
  move(path, temporary);
  std::error_code error;
  fs::remove_all(temporary, error);
  if (error) throw Error(path, fmt::format("cannot be removed: {}", error.message()), "remove it by hand");
}

void remove_stale(const std::string& folder, std::string_view prefix) {
  std::vector<fs::path> stale;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const auto pid = maker(name);
    if (pid && name.starts_with('.') && std::string_view(name).substr(1).starts_with(prefix) && !runs_elsewhere(*pid))
      stale.push_back(entry->path());
  }
  for (const fs::path& path : stale) fs::remove_all(path, error);
}

std::string without_trailing_slash(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

}  // namespace mixtune
