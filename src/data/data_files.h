// The files of a run's data: the paths and patterns of a config, resolved.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"

namespace mixtune {

// The files that `paths` name, in their order. A path that exists is itself, whatever characters it has; another with
// '*', '?' or '[' is a pattern (glob(7)) for the files that it matches, by name. Throws UserError at `where` for a path
// that is no readable regular file, with what to do about it, and for a pattern that matches none.
std::vector<std::string> find_data_files(std::span<const std::string> paths, std::string_view where);

// The data sets that `config` trains on: its datasets, or train_file as one, with their paths resolved. Throws as
// find_data_files does, and for what is no split (gpt_split.h).
std::vector<Dataset> train_datasets(const Config& config);
// A set that is evaluated by itself. Its metrics are called "eval_NAME_loss", or "eval_loss" where it has no name.
struct ValidationSet {
  std::string name;
  Dataset dataset;
};
// The sets of validation_file, resolved so, in the order of their names; none where it is not set.
std::vector<ValidationSet> validation_sets(const Config& config);
std::vector<Dataset> validation_datasets(const Config& config);  // of all sets

// The files of all data sets.
std::vector<std::string> files_of(std::span<const Dataset> datasets);

}  // namespace mixtune
