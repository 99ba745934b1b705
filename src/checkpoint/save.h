// A State written as a Hugging Face folder that transformers, vLLM and llama.cpp load.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "state/state.h"

namespace mixtune {

struct SaveOptions {
  std::string out_folder;      // must not exist; the folder it is in must
  std::string source_folder;   // its side files are copied byte for byte; empty: none
  std::string config_json;     // text of config.json; empty: source_folder's
  std::optional<DType> dtype;  // of every tensor; none: each tensor's own in source_folder, so nothing is lost
  uint64_t max_shard_size = 5'000'000'000;  // bytes of tensors in one file; a larger tensor has a file of its own
};

// Writes the weights (fp32, on the CPU) in the hub's layout, an index if there is more than one file, and the side
// files. The folder appears under its name complete, or not at all.
void save_checkpoint(const State& state, const SaveOptions& options);

// "5GB" -> 5'000'000'000: a whole number and no unit, KB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB. Throws
// UserError, without a place: the caller knows which key it came from.
uint64_t parse_size(std::string_view text);

}  // namespace mixtune
