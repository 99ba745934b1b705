#include "checkpoint/run_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "base/contained.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "checkpoint/foreign_folder.h"

namespace mixtune {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kCheckpoint = "checkpoint-";
constexpr const char* kNameOne = "give one of the checkpoint-N folders";

}  // namespace

std::string checkpoint_name(int64_t step) {
  return fmt::format("{}{}", kCheckpoint, step);
}

std::optional<int64_t> checkpoint_step(std::string_view name) {
  if (!name.starts_with(kCheckpoint)) return {};
  const std::string_view digits = name.substr(kCheckpoint.size());
  int64_t step = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  if (error != std::errc() || step < 0 || checkpoint_name(step) != name) return {};  // "007" is no name of ours
  return step;
}

std::vector<int64_t> checkpoint_steps(const std::string& folder) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    if (const auto step = checkpoint_step(entry->path().filename().string())) steps.push_back(*step);
  std::ranges::sort(steps);
  return steps;
}

namespace {

bool is_run(const std::string& path) {
  std::error_code error;
  return !fs::exists(path + "/config.json", error) && fs::is_regular_file(path + "/" + kLatestFile, error);
}

std::string line_of(const std::string& path, const char* file) {
  constexpr size_t kMaxName = 64;
  std::string line = read_small_file(path_within(path, file), kMaxName, kNameOne);
  if (line.ends_with('\n')) line.pop_back();
  return line;
}

std::string named_checkpoint(const std::string& path, const char* file, bool say) {
  const std::string name = line_of(path, file), where = printable_path(path + "/" + file);
  if (!checkpoint_step(name)) {
    const auto foreign = foreign_folder(path);  // DeepSpeed's folders have a `latest` too
    throw UserError(foreign ? printable_path(path) : where, foreign ? foreign->what : "does not name a checkpoint",
                    foreign ? foreign->mend : kNameOne);
  }
  const std::string folder =
      path_within(path, name, fmt::format("give that folder itself: {}", printable_path(path + "/" + name)));
  std::error_code error;
  if (!fs::is_directory(folder, error))
    throw UserError(where, fmt::format("names {}, which is not there", name), kNameOne);
  if (say) log_info("{}: a run's folder: its {} checkpoint, {}, is taken", printable_path(path), file, name);
  return folder;
}

}  // namespace

std::optional<int64_t> named_step(const std::string& folder, const char* file) {
  std::error_code error;
  if (fs::symlink_status(folder + "/" + file, error).type() != fs::file_type::regular) return {};
  try {
    return checkpoint_step(line_of(folder, file));
  } catch (const UserError&) {
    return {};
  }
}

std::string model_folder(const std::string& path, bool say) {
  if (!is_run(path)) return path;
  std::error_code error;
  const bool has_best = fs::is_regular_file(path + "/" + kBestFile, error);
  return named_checkpoint(path, has_best ? kBestFile : kLatestFile, say);
}

std::string newest_checkpoint(const std::string& path, bool say) {
  return is_run(path) ? named_checkpoint(path, kLatestFile, say) : path;
}

}  // namespace mixtune
