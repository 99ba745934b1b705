#include "run/event_files.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/staged.h"
#include "metrics/event_file.h"
#include "run/records.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

// "events.out.tfevents.SECONDS.HOST.PID.0", as TensorFlow and PyTorch name them too.
constexpr std::string_view kEventPrefix = "events.out.tfevents.";
constexpr size_t kEventDigits = 10;

// When a file of this name was made, in seconds since 1970; none where it is not one of an event file.
std::optional<int64_t> made_at(std::string_view name) {
  const char* digits = name.data() + kEventPrefix.size();
  int64_t seconds = 0;
  if (!name.starts_with(kEventPrefix) || name.size() <= kEventPrefix.size() + kEventDigits ||
      name[kEventPrefix.size() + kEventDigits] != '.' ||
      std::from_chars(digits, digits + kEventDigits, seconds).ptr != digits + kEventDigits || seconds < 0)
    return {};
  return seconds;
}

// The names of event files, whoever made them.
std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  if (!fs::is_directory(fs::symlink_status(folder, error))) return names;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code gone;
    const std::string name = entry->path().filename();
    if (made_at(name) && fs::is_regular_file(entry->symlink_status(gone))) names.push_back(name);
  }
  std::ranges::sort(names);
  return names;
}

bool is_own(const std::string& path) {
  try {
    const InputFile file(path);
    const std::optional<Event> first = EventReader(file).next();
    return first && first->writer == kEventWriter;
  } catch (const Error&) {  // whose it is cannot be seen
    return false;
  }
}

std::vector<std::string> own_files(const std::string& folder) {
  std::vector<std::string> paths;
  for (const std::string& name : names_in(folder))
    if (const std::string path = folder + "/" + name; is_own(path)) paths.push_back(path);
  return paths;
}

// The size of the file up to the last whole event of `last` or an earlier step; 0 where only its opening event is.
uint64_t whole_up_to(const std::string& path, int64_t last) {
  const InputFile file(path);
  EventReader reader(file);
  reader.next();
  uint64_t size = 0;
  while (const std::optional<Event> event = reader.next())
    if (event->step <= last) size = reader.end();
  return size;
}

}  // namespace

bool has_event_files(const std::string& folder) {
  return !own_files(folder).empty();
}

void check_event_folder(const std::string& folder) {
  if (!is_taken(folder)) return;
  std::error_code error;
  const bool is_folder = fs::is_directory(fs::symlink_status(folder, error));
  if (is_folder && access(folder.c_str(), R_OK | W_OK | X_OK) == 0) return;
  throw UserError(
      printable_path(folder),
      is_folder ? fmt::format("cannot be written: {}", std::strerror(errno)) : "is no folder, or a link to one",
      "remove it, choose another output_dir, or set report_to: none");
}

std::string new_event_file(const std::string& folder) {
  check_event_folder(folder);
  std::error_code error;
  fs::create_directory(folder, error);
  if (error)
    throw UserError(printable_path(folder), fmt::format("cannot be made: {}", error.message()),
                    "check the folder's permissions");
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  int64_t seconds = std::chrono::duration_cast<std::chrono::seconds>(now).count();
  for (const std::string& name : names_in(folder)) seconds = std::max(seconds, *made_at(name) + 1);
  return fmt::format("{}/{}{:0{}}.{}.{}.0", folder, kEventPrefix, seconds, kEventDigits, host_name(), getpid());
}

void remove_event_files(const std::string& folder) {
  remove_stale(folder, kEventPrefix);
  const std::vector<std::string> files = own_files(folder);
  for (const std::string& path : files) remove_whole(path);
  if (!files.empty()) rmdir(folder.c_str());  // unless others are in it
}

void cut_event_files(const std::string& folder, int64_t step) {
  remove_stale(folder, kEventPrefix);
  for (const std::string& path : own_files(folder)) {
    if (const uint64_t size = whole_up_to(path, step); size > 0)
      cut_file(path, size);
    else
      remove_whole(path);
  }
}

}  // namespace mixtune
