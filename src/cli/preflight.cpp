#include "cli/preflight.h"

#include <fmt/format.h>

#include <filesystem>
#include <string>

#include "base/error.h"
#include "checkpoint/adapter_config.h"
#include "checkpoint/foreign_folder.h"
#include "checkpoint/index.h"
#include "checkpoint/run_folder.h"
#include "data/data_files.h"
#include "data/foreign_data.h"
#include "data/indexed_files.h"
#include "data/record_reader.h"

namespace mixtune {

namespace fs = std::filesystem;

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

FoundModel find_model_or_adapter(const std::string& model, const std::string& base, bool say) {
  const std::string where = "MODEL", folder = model_folder(model, say);
  const auto has = [&](const char* name) {
    std::error_code error;
    return fs::is_regular_file(fs::path(folder) / name, error);
  };
  // Some trainers leave the base's config.json beside an adapter.
  if (!has(kAdapterConfigFile) || has(kWeightsFile) || has(kIndexFile)) {
    const std::string found = find_model(folder, where, false);
    if (!base.empty())
      throw UserError("--base", fmt::format("'{}' is no adapter", printable(folder, 200)), "remove it");
    return {.folder = found, .adapter = "", .tokenizer = found};
  }
  const std::string named = read_adapter_config(folder).base;
  if (base.empty() && named.empty())
    throw UserError(where, fmt::format("the adapter '{}' does not name its base", printable(folder, 200)),
                    "give it: --base FOLDER");
  const std::string found = base.empty() ? find_model(named,
                                                      fmt::format("{}: base_model_name_or_path (--base names another)",
                                                                  printable_path(folder + "/" + kAdapterConfigFile)),
                                                      say)
                                         : find_model(base, "--base", say);
  const bool has_tokenizer = has("tokenizer.json") || has("tokenizer.model");
  return {.folder = found, .adapter = folder, .tokenizer = has_tokenizer ? folder : found};
}

std::string find_adapter(const std::string& path, bool say) {
  std::string folder = model_folder(path, say);
  read_adapter_config(folder);
  return folder;
}

void check_data_files(const Config& config) {
  for (const auto& datasets : {train_datasets(config), validation_datasets(config)})
    for (const std::string& file : files_of(datasets))
      if (!find_indexed(file)) RecordReader{file};
}

}  // namespace mixtune
