// Changes to the text of a config.json, every other byte of which stays as it was.
#pragma once

#include <cstdint>
#include <string>

#include "base/dtype.h"

namespace mixtune {

// `config_json` with its top-level `dtype` or `torch_dtype` set to `dtype`. Where it has neither, one is added for what
// is not fp32, as transformers 4 loads a model without one in fp32: `dtype` in the dialect of transformers 5, else
// `torch_dtype`, which every version reads.
std::string with_dtype(std::string config_json, DType dtype);

// `config_json` with its top-level `vocab_size` set, or added.
std::string with_vocab_size(std::string config_json, int64_t vocab_size);

}  // namespace mixtune
