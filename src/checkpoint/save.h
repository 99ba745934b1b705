// Writes a State as a Hugging Face folder that transformers, vLLM and llama.cpp load.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/staged.h"
#include "checkpoint/hf_folder.h"
#include "checkpoint/side_files.h"
#include "checkpoint/stored_file.h"
#include "checkpoint/write_behind.h"
#include "state/state.h"

namespace mixtune {

struct SaveOptions {
  // What is written: the model; or the adapters beside it (ParamSpec::Origin::kInitialised) and what of it is trained,
  // all in one file, whose config_json is the text of adapter_config.json.
  enum class What : uint8_t { kModel, kAdapters };

  std::string out_folder;                // must not exist; its parent must
  std::string config_json;               // the text of config.json
  std::span<const SideFile> side_files;  // written byte for byte under their own names
  std::optional<DType> dtype;            // for every tensor; none: its own in `source`, or the state's
  const HfFolder* source = nullptr;
  uint64_t more_bytes = 0;                  // that will be put in the folder besides: the disk must have room for all
  uint64_t max_shard_size = 5'000'000'000;  // bytes of tensors in one file; a larger tensor has a file of its own
  What what = What::kModel;
};

// Whether a parameter is among what is written.
bool is_saved(const State& state, const SaveOptions& options, int param);

// The dtype that a block of a parameter is saved in.
DType saved_dtype(const State& state, const SaveOptions& options, int param, const HfBlock& block);

// The name that a block of a parameter is saved under.
std::string saved_name(const State& state, const SaveOptions& options, int param, const HfBlock& block);

// The text of the config.json that is written.
constexpr const char* kConfigFile = "config.json";
std::string saved_config(const SaveOptions& options);

// The bytes that this rank copies to the host for the weights, and that it writes of them.
struct SavedBytes {
  uint64_t copied = 0, written = 0;
};
SavedBytes saved_bytes(const State& state, const SaveOptions& options);

// Whether saving takes the masters: a tensor is saved in another dtype than that of its weight, which has one.
bool saves_masters(const State& state, const SaveOptions& options);

// What several threads have written.
class WrittenFiles {
 public:
  void add(const std::string& name, StoredFile file) {
    const std::lock_guard lock(mutex_);
    files_[name] = std::move(file);
  }
  StoredFiles files() const {
    const std::lock_guard lock(mutex_);
    return files_;
  }

 private:
  mutable std::mutex mutex_;
  StoredFiles files_;
};

// A folder that is written behind its caller's back: the weights (their masters, where saves_masters) in the hub's
// layout, an index if there is more than one file, and the side files. Each rank writes files of what it holds; rank 0
// writes everything else. It appears under its name complete, or not at all.
class PendingCheckpoint {
 public:
  // Puts copies of the weights on the ctx's stream, and the writing behind: the state may change when it returns, but
  // lives on, and so does options.source, from which weights that are not trained are copied where they are held in
  // less than it has. All ranks of `world` call this, and see the same folders. `behind` outlives this; what goes wrong
  // is its failure: Error (kWentBad) where a weight is not finite.
  PendingCheckpoint(Ctx& ctx, const State& state, const SaveOptions& options, Communicator& world, WriteBehind& behind);

  // Where it is made, for what more is to be in it; "" where that failed, in all ranks.
  const std::string& folder() const { return folder_; }
  WriteBehind& behind() { return behind_; }
  // The files that this rank has written, which threads add to.
  const std::shared_ptr<WrittenFiles>& written() const { return written_; }
  // For rank 0: a file, and a folder in the folder, which is there when this returns.
  void put_file(const std::string& name, std::string content);
  void make_folder(const std::string& name);

  // Puts the adapters, of which each rank has written a file, into the one that adapters are read from: once all files
  // of all ranks, `files`, are on the disk. For rank 0. Leaves a model, and adapters of one file, as they are.
  void join_adapters(StoredFiles& files) const;
  // Gives the folder its name, once all files of all ranks are on the disk. For rank 0.
  void commit();

 private:
  template <class F>
  void try_to(F&& work);

  WriteBehind& behind_;
  std::string folder_;
  std::optional<StagedFolder> staged_;  // rank 0's
  std::vector<std::string> folders_;
  std::vector<std::string> parts_;  // rank 0's: the files of adapters, where there are several
  std::shared_ptr<WrittenFiles> written_ = std::make_shared<WrittenFiles>();
};

// The same, waiting for all of it. Throws what went wrong.
void save_checkpoint(Ctx& ctx, const State& state, const SaveOptions& options, Communicator& world);
void save_checkpoint(Ctx& ctx, const State& state, const SaveOptions& options);  // one rank alone

}  // namespace mixtune
