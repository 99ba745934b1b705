// The cheap checks before any heavy work: what a config names is there.
#pragma once

#include <string>

#include "config/config.h"

namespace mixtune {

// The folder of a model that `path` means, as model_folder has it, which has a config.json. Throws UserError at `where`
// for any other.
std::string find_model(const std::string& path, const std::string& where, bool say = true);

// A model, or an adapter beside one.
struct FoundModel {
  std::string folder;     // the model's, or the base's
  std::string adapter;    // "": there is none
  std::string tokenizer;  // the folder with the tokeniser: the adapter's, where it has one
};
// The same of a MODEL that may be an adapter's folder. Its base is `base` (--base), or, where that is "", the one that
// the adapter names. Throws UserError as find_model does, and for a `base` without an adapter.
FoundModel find_model_or_adapter(const std::string& model, const std::string& base, bool say = true);

// The adapter's folder that `path`, of adapter_name_or_path, means. Throws UserError where it is none.
std::string find_adapter(const std::string& path, bool say);

// Throws UserError unless the data files that are named can be read and begin as they should. Keys are reported where
// they were set.
void check_data_files(const Config& config);

}  // namespace mixtune
