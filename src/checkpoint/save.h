// Writes a State as a Hugging Face folder that transformers, vLLM and llama.cpp load.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/hf_folder.h"
#include "checkpoint/side_files.h"
#include "state/state.h"

namespace mixtune {

struct SaveOptions {
  std::string out_folder;                // must not exist; its parent must
  std::string config_json;               // the text of config.json
  std::span<const SideFile> side_files;  // written byte for byte under their own names
  std::optional<DType> dtype;            // for every tensor; none: its own in `source`, or the state's
  const HfFolder* source = nullptr;
  uint64_t max_shard_size = 5'000'000'000;  // bytes of tensors in one file; a larger tensor has a file of its own
  std::function<void()> advanced = {};      // called every 16 MiB that are written, and at every file's end
  // Called by all ranks when all else is written: writes what more is to be in the folder, whose place it gets.
  std::function<void(const std::string& folder)> with_more = {};
};

// The dtype that a block of a parameter is saved in.
DType saved_dtype(const State& state, const SaveOptions& options, int param, const HfBlock& block);

// Whether saving takes the masters: a tensor is saved in another dtype than that of its weight, which has one.
bool saves_masters(const State& state, const SaveOptions& options);

// Writes the weights (their masters, where saves_masters) in the hub's layout, an index if there is more than one file,
// and the side files. The folder appears under its name complete, or not at all. Throws Error (kWentBad) where a weight
// is not finite. All ranks of `world` call this, and see the same folders. Each writes files of what it holds; rank 0
// writes everything else.
void save_checkpoint(Ctx& ctx, const State& state, const SaveOptions& options, Communicator& world);
void save_checkpoint(Ctx& ctx, const State& state, const SaveOptions& options);  // one rank alone

}  // namespace mixtune
