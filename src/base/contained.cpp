#include "base/contained.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

bool is_hub_blob(const fs::path& file) {
  const std::string hash = file.filename().string(), model = file.parent_path().parent_path().filename().string();
  constexpr size_t kSha1Digits = 40, kSha256Digits = 64;
  return file.parent_path().filename() == "blobs" && model.starts_with("models--") &&
         (hash.size() == kSha1Digits || hash.size() == kSha256Digits) &&
         hash.find_first_not_of("0123456789abcdef") == hash.npos;
}

}  // namespace

bool leads_out(const std::string& folder, const std::string& name) {
  std::error_code error;
  const fs::path path = fs::path(folder) / name;
  if (!fs::is_symlink(path, error)) return false;
  const fs::path file = fs::canonical(path, error);
  if (error) return false;  // the link leads nowhere
  const fs::path root = fs::canonical(folder, error);
  const bool inside = !error && std::ranges::mismatch(root, file).in1 == root.end();
  return !inside && !is_hub_blob(file);
}

std::string path_within(const std::string& folder, const std::string& name, std::string_view mend) {
  const std::string path = folder + "/" + name;
  if (leads_out(folder, name)) throw UserError(printable_path(path), "is a link that leads out of its folder", mend);
  return path;
}

std::string read_config_json(const std::string& folder) {
  constexpr size_t kMaxBytes = 1 << 20;
  return read_small_file(path_within(folder, "config.json"), kMaxBytes, "give the folder of a whole checkpoint");
}

std::vector<std::string> regular_files(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code unreadable;  // like a link that leads nowhere
    if (entry->is_regular_file(unreadable)) names.push_back(entry->path().filename().string());
  }
  if (error)
    throw UserError(printable_path(folder), fmt::format("cannot be listed: {}", error.message()), "check the path");
  std::ranges::sort(names);
  return names;
}

}  // namespace mixtune
