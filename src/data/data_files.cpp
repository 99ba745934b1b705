#include "data/data_files.h"

#include <fmt/format.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "data/foreign_data.h"
#include "data/gpt_split.h"
#include "data/indexed_files.h"

namespace mixtune {

namespace {

constexpr std::string_view kGiveAPath = "give the path of a JSONL file, or the prefix of indexed data",
                           kGiveBoth = "indexed data is PREFIX.idx and PREFIX.bin: check that both are there";

bool is_pattern(std::string_view path) {
  return path.find_first_of("*?[") != path.npos;
}

[[noreturn]] void refuse_missing(const std::string& path, int error, std::string_view where, std::string_view mend) {
  if (const auto foreign = foreign_path(path)) throw UserError(where, foreign->what, foreign->mend);
  throw UserError(where, fmt::format("'{}' cannot be opened ({})", printable(path, 200), std::strerror(error)), mend);
}

void check_file(const std::string& path, std::string_view where, std::string_view mend) {
  const std::string shown = printable(path, 200);
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0) refuse_missing(path, errno, where, mend);
  if (S_ISDIR(info.st_mode)) {
    const ForeignData folder = foreign_data_folder(path);
    throw UserError(where, fmt::format("'{}' {}", shown, folder.what), folder.mend);
  }
  if (!S_ISREG(info.st_mode)) throw UserError(where, fmt::format("'{}' is not a regular file", shown), mend);
  if (access(path.c_str(), R_OK) != 0)
    throw UserError(where, fmt::format("'{}' may not be read", shown), "check its permissions");
}

// Checks a file of records, or the two of indexed data.
void check_data(const std::string& path, std::string_view where) {
  const auto prefix = find_indexed(path);
  if (!prefix) return check_file(path, where, kGiveAPath);
  const IndexedPaths paths(*prefix);
  for (const std::string& file : {paths.idx, paths.bin}) check_file(file, where, kGiveBoth);
}

// The files that glob(3) finds.
class Matches {
 public:
  Matches(const std::string& pattern, std::string_view where) {
    const int status = glob(pattern.c_str(), GLOB_ERR, nullptr, &found_);
    if (status == 0 || status == GLOB_NOMATCH) return;
    globfree(&found_);
    throw UserError(where, fmt::format("'{}': its folders cannot be read", printable(pattern, 200)),
                    "check their permissions");
  }
  ~Matches() { globfree(&found_); }
  Matches(const Matches&) = delete;
  Matches& operator=(const Matches&) = delete;

  std::vector<std::string> paths() const { return {found_.gl_pathv, found_.gl_pathv + found_.gl_pathc}; }

 private:
  glob_t found_ = {};
};

std::vector<std::string> expand(const std::string& pattern, std::string_view where) {
  const std::string shown = printable(pattern, 200);
  if (pattern.find("**") != pattern.npos)
    throw UserError(where, fmt::format("'{}': '**' is not supported", shown),
                    "write a '*' for each level of folders: data/*/*.jsonl");
  std::vector<std::string> paths = Matches(pattern, where).paths();
  if (paths.empty())
    throw UserError(where, fmt::format("no file matches '{}'", shown),
                    "check it: paths are relative to the folder that the command is started in");
  return paths;
}

void check_split(std::string_view split, const std::string& where) {
  if (!split.empty()) split_sequences(split, 1, where);
}

}  // namespace

std::vector<std::string> find_data_files(std::span<const std::string> paths, std::string_view where) {
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    struct stat info = {};
    const bool pattern = is_pattern(path) && path.find("://") == path.npos && stat(path.c_str(), &info) != 0;
    for (const std::string& file : pattern ? expand(path, where) : std::vector{path}) {
      check_data(file, where);
      files.push_back(file);
    }
  }
  return files;
}

std::vector<Dataset> train_datasets(const Config& config) {
  const DataSettings& data = config.data;
  check_split(data.split, config.where("split"));
  if (data.datasets.empty()) return {{.path = find_data_files(data.train_file, config.where("train_file"))}};
  std::vector<Dataset> datasets = data.datasets;
  const std::string where = config.where("datasets");
  for (size_t i = 0; i < datasets.size(); ++i) {
    const std::string entry = fmt::format("{}: entry {}", where, i + 1);
    check_split(datasets[i].split, entry + ": split");
    datasets[i].path = find_data_files(datasets[i].path, entry);
  }
  return datasets;
}

std::vector<ValidationSet> validation_sets(const Config& config) {
  const ValidationFiles& files = config.data.validation_file;
  const std::string where = config.where("validation_file");
  if (!files.path.empty()) return {{.name = "", .dataset = {.path = find_data_files(files.path, where)}}};
  std::vector<ValidationSet> sets;
  for (const auto& [name, path] : files.named)
    sets.push_back(
        {.name = name, .dataset = {.path = find_data_files({&path, 1}, fmt::format("{}: {}", where, name))}});
  return sets;
}

std::vector<Dataset> validation_datasets(const Config& config) {
  std::vector<Dataset> datasets;
  for (ValidationSet& set : validation_sets(config)) datasets.push_back(std::move(set.dataset));
  return datasets;
}

std::vector<std::string> files_of(std::span<const Dataset> datasets) {
  std::vector<std::string> files;
  for (const Dataset& dataset : datasets) files.insert(files.end(), dataset.path.begin(), dataset.path.end());
  return files;
}

}  // namespace mixtune
