// Which files the data of a run is in: the paths and patterns of a config, taken to files.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"

namespace mixtune {

// The files that `paths` name, in their order. One that is there is itself, whatever characters it has; another with
// '*', '?' or '[' is a pattern (glob(7)), and becomes the files that it matches, by name. Throws UserError at `where`
// for what is no readable regular file, with what to do about it, and for a pattern that matches none.
std::vector<std::string> find_data_files(std::span<const std::string> paths, std::string_view where);

// What `config` trains on: its datasets, or train_file as one, their paths taken to files. Throws as find_data_files
// does, and for what is no split (gpt_split.h).
std::vector<Dataset> train_datasets(const Config& config);
// The same for validation_file; none where it is not set.
std::vector<Dataset> validation_datasets(const Config& config);

// The files of all data sets.
std::vector<std::string> files_of(std::span<const Dataset> datasets);

}  // namespace mixtune
