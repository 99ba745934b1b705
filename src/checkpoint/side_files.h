// What a model folder holds besides its weights: configuration, tokeniser, chat template, licence.
#pragma once

#include <string>
#include <vector>

#include "base/dtype.h"

namespace mixtune {

// Names of the regular files of `folder` (links to files included, folders not) that hold no weights, sorted.
std::vector<std::string> side_files(const std::string& folder);

// `config_json` with the value of its top-level `dtype` or `torch_dtype` replaced, every other byte as it was. A config
// that names no dtype stays as it is.
std::string with_dtype(std::string config_json, DType dtype);

}  // namespace mixtune
