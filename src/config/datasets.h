// The key `datasets`: a list of mappings in YAML, or words as Megatron's --data-path takes them.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "config/yaml.h"

namespace mixtune {

// Entries {path, weight, format, template, split, max_samples}; `file` names the file in messages. Throws UserError for
// an unknown key, a bad value or an entry without a path, with its line.
std::vector<Dataset> parse_datasets(std::span<const YamlMapping> entries, std::string_view file);

// "WEIGHT PATH WEIGHT PATH ...", or paths alone, as Megatron tells the two apart: weights, if every other word, from
// the first on, is a number. Throws UserError at `where`.
std::vector<Dataset> parse_dataset_words(std::span<const std::string> words, std::string_view where);
std::vector<Dataset> parse_dataset_words(std::string_view text, std::string_view where);  // parted by white space

// Throws UserError where only some of `datasets` have a weight.
void check_weights_of(std::span<const Dataset> datasets, std::string_view where);

// As YAML (and JSON) spell them, in one line; it reads back as the same.
std::string format_datasets(std::span<const Dataset> datasets);

}  // namespace mixtune
