// The element type that a config.json gives its model.
#pragma once

#include <string>

#include "base/dtype.h"

namespace mixtune {

// `config_json` with its top-level `dtype` or `torch_dtype` set to `dtype`, every other byte as it was. Where it has
// neither, one is added for what is not fp32, as transformers 4 loads a model without one in fp32: `dtype` in the
// dialect of transformers 5, else `torch_dtype`, which every version reads.
std::string with_dtype(std::string config_json, DType dtype);

}  // namespace mixtune
