#include "cli/preflight.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>

#include "base/error.h"
#include "checkpoint/foreign_folder.h"
#include "checkpoint/run_folder.h"
#include "data/indexed_files.h"

namespace mixtune {

namespace fs = std::filesystem;

namespace {

// "mistralai/Mixtral-8x7B-v0.1": what a name on the hub looks like, unless it is a slip in a path of this machine.
bool looks_like_hub_name(std::string_view name) {
  const size_t slash = name.find('/');
  std::error_code error;
  return slash != name.npos && slash > 0 && name[0] != '.' && name.find('/', slash + 1) == name.npos &&
         slash + 1 < name.size() && !fs::is_directory(name.substr(0, slash), error);
}

void check_file(const std::string& where, const std::string& path, std::string_view mend) {
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0)
    throw UserError(where, fmt::format("'{}' cannot be opened ({})", printable(path, 200), std::strerror(errno)), mend);
  if (!S_ISREG(info.st_mode))
    throw UserError(
        where,
        fmt::format("'{}' is {}", printable(path, 200), S_ISDIR(info.st_mode) ? "a folder" : "not a regular file"),
        mend);
  if (access(path.c_str(), R_OK) != 0)
    throw UserError(where, fmt::format("'{}' may not be read", printable(path, 200)), "check its permissions");
}

// A file, or the two of indexed data.
void check_data(const std::string& where, const std::string& path) {
  const auto prefix = find_indexed(path);
  if (!prefix) return check_file(where, path, "give the path of a JSONL file, or the prefix of indexed data");
  const IndexedPaths paths(*prefix);
  for (const std::string& file : {paths.idx, paths.bin})
    check_file(where, file, "indexed data is PREFIX.idx and PREFIX.bin: check that both are there");
}

}  // namespace

std::string find_model(const std::string& path, const std::string& where, bool say) {
  const std::string folder = model_folder(path, say);
  std::error_code error;
  if (fs::is_regular_file(fs::path(folder) / "config.json", error)) return folder;
  const std::string shown = printable(folder, 200);
  if (const auto foreign = foreign_folder(folder))
    throw UserError(where, fmt::format("the folder '{}' {}", shown, foreign->what), foreign->mend);
  if (fs::is_directory(folder, error))
    throw UserError(where, fmt::format("the folder '{}' has no config.json", shown),
                    "give a Hugging Face model folder");
  if (fs::exists(folder, error))
    throw UserError(where, fmt::format("'{}' is not a folder", shown), "give a Hugging Face model folder");
  throw UserError(where, fmt::format("there is no folder '{}'", shown),
                  looks_like_hub_name(folder)
                      ? fmt::format("download it first: hf download {} --local-dir FOLDER", shown)
                      : "give a Hugging Face model folder");
}

void check_data_files(const Config& config) {
  for (const std::string& path : config.data.train_file) check_data(config.where("train_file"), path);
  if (!config.data.validation_file.empty()) check_data(config.where("validation_file"), config.data.validation_file);
}

}  // namespace mixtune
