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

std::string model_folder(const std::string& path, bool say) {
  std::error_code error;
  if (fs::exists(path + "/config.json", error) || !fs::is_regular_file(path + "/" + kLatestFile, error)) return path;
  constexpr size_t kMaxName = 64;
  const std::string latest = path_within(path, kLatestFile);
  std::string name = read_small_file(latest, kMaxName, kNameOne);
  if (name.ends_with('\n')) name.pop_back();
  if (!checkpoint_step(name)) {
    const auto foreign = foreign_folder(path);  // DeepSpeed's folders have a file of this name
    throw UserError(printable_path(foreign ? path : latest), foreign ? foreign->what : "does not name a checkpoint",
                    foreign ? foreign->mend : kNameOne);
  }
  const std::string folder =
      path_within(path, name, fmt::format("give that folder itself: {}", printable_path(path + "/" + name)));
  if (!fs::is_directory(folder, error))
    throw UserError(printable_path(latest), fmt::format("names {}, which is not there", name), kNameOne);
  if (say) log_info("{}: a run's folder: its latest checkpoint, {}, is taken", printable_path(path), name);
  return folder;
}

}  // namespace mixtune
