#include "checkpoint/save.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <sstream>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/staged.h"
#include "checkpoint/convert.h"
#include "checkpoint/counted_part.h"
#include "checkpoint/edit_config.h"
#include "checkpoint/hf_folder.h"
#include "checkpoint/index.h"
#include "checkpoint/readback.h"
#include "parallel/ranks.h"

namespace mixtune {

namespace {

constexpr const char* kConfigFile = "config.json";

// A Hugging Face tensor that this rank writes.
struct HubTensor {
  TensorEntry entry;
  std::optional<Shape> stored;  // its shape in the checkpoint that it was loaded from, if any
};

using Shard = std::vector<HubTensor>;

std::vector<HubTensor> hub_tensors(const State& state) {
  std::vector<HubTensor> tensors;
  std::unordered_map<std::string, int64_t> missing;  // elements of each tensor that no parameter has
  for (int param = 0; param < state.size(); ++param) {
    if (!state.saves(param)) continue;
    for (const HfBlock& block : state.spec(param).blocks) {
      const auto [elements, is_new] = missing.emplace(block.name, block.shape().elements());
      if (is_new) {
        tensors.emplace_back().entry = {block.name, state.weight(param).dtype, block.shape()};
        if (is_stored(state, param)) tensors.back().stored = block.stored_shape();
      }
      elements->second -= block.elements();
    }
  }
  for (const auto& [name, elements] : missing) MT_CHECK(elements == 0);
  return tensors;
}

void choose_dtypes(std::vector<HubTensor>& tensors, const SaveOptions& options) {
  if (options.dtype) {
    for (HubTensor& tensor : tensors) tensor.entry.dtype = *options.dtype;
    return;
  }
  for (HubTensor& tensor : tensors)
    if (tensor.stored) tensor.entry.dtype = *options.source->locate(tensor.entry.name, *tensor.stored).stored->dtype;
}

std::vector<Shard> split(std::vector<HubTensor> tensors, uint64_t max_shard_size) {
  std::vector<Shard> shards;
  uint64_t used = 0;
  for (HubTensor& tensor : tensors) {
    const uint64_t bytes = tensor.entry.bytes();
    if (shards.empty() || used + bytes > max_shard_size) {
      shards.emplace_back();
      used = 0;
    }
    used += bytes;
    shards.back().push_back(std::move(tensor));
  }
  // The order of the reference library: by name, wide types first, so that every tensor is aligned to its type.
  for (Shard& shard : shards)
    std::ranges::sort(shard, {}, [](const HubTensor& tensor) {
      return std::pair(-static_cast<int>(dtype_size(tensor.entry.dtype)), std::string_view(tensor.entry.name));
    });
  return shards;
}

// Converts chunks of weights to bytes of a file's type.
class Converter {
 public:
  // The bytes, valid until the next call. Throws Error where a value is not finite or too large for `dtype`.
  std::span<const std::byte> operator()(const Tensor& chunk, DType dtype, const std::string& name) {
    check_finite_to_save(chunk, name);
    if (chunk.dtype == dtype) return bytes_of(chunk);
    const std::span<const float> values = wide(chunk);
    if (dtype == DType::kF32) return std::as_bytes(values);
    narrow_.resize(values.size() * dtype_size(dtype));
    if (!narrow(values, dtype, narrow_))
      throw Error(name, fmt::format("holds a value too large for {}", dtype_name(dtype)), "set save_dtype: fp32");
    return narrow_;
  }

 private:
  std::span<const float> wide(const Tensor& chunk) {
    const auto n = static_cast<size_t>(chunk.elements());
    if (chunk.dtype == DType::kF32) return {chunk.as<float>(), n};
    wide_.resize(n);
    decode(bytes_of(chunk), chunk.dtype, host_tensor(wide_.data(), {chunk.elements()}));
    return wide_;
  }

  std::vector<float> wide_;
  std::vector<std::byte> narrow_;
};

// The files of a checkpoint that all ranks write together: which are this rank's, and what is in each.
struct Files {
  int64_t first = 0, count = 0;  // this rank's are numbers [first, first + own), of `count`
  WeightMap weight_map;          // of all ranks, at rank 0
  uint64_t total_size = 0;

  std::string name(int64_t i) const {
    return count == 1 ? kWeightsFile : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, count);
  }
};

Files name_files(Ctx& ctx, const std::vector<Shard>& shards, Communicator& world) {
  std::string names;  // "FILE NAME BYTES" lines, the files counted from this rank's first
  for (size_t i = 0; i < shards.size(); ++i)
    for (const HubTensor& tensor : shards[i])
      names += fmt::format("{} {} {}\n", i, tensor.entry.name, tensor.entry.bytes());
  Files files;
  const std::vector<std::string> all =
      gather_texts(ctx, world, "names of saved tensors", fmt::format("{}\n{}", shards.size(), names));
  std::vector<int64_t> first;
  for (int rank = 0; rank < world.size(); ++rank) {
    if (rank == world.rank()) files.first = files.count;
    first.push_back(files.count);
    files.count += std::stoll(all[rank]);
  }
  for (int rank = 0; rank < world.size(); ++rank) {
    std::istringstream lines(all[rank].substr(all[rank].find('\n') + 1));
    std::string name;
    uint64_t bytes = 0;
    for (int64_t i = 0; lines >> i >> name >> bytes; files.total_size += bytes)
      files.weight_map.emplace(name, files.name(first[rank] + i));
  }
  return files;
}

// This rank's files. Each is open from the first of its bytes to the last.
class ShardFiles {
 public:
  ShardFiles(const std::vector<Shard>& shards, const Files& files, const SaveOptions& options, std::string folder)
      : shards_(shards), files_(files), options_(options), folder_(std::move(folder)), open_(shards.size()) {
    for (size_t s = 0; s < shards.size(); ++s)
      for (size_t e = 0; e < shards[s].size(); ++e) places_[shards[s][e].entry.name] = {s, e};
  }

  // Writes `chunk`: elements of the block from its index `first` on.
  void write(const HfBlock& block, int64_t first, const Tensor& chunk) {
    const auto& [shard, position] = places_.at(block.name);
    const size_t number = position;
    const TensorEntry& entry = shards_[shard][number].entry;
    const auto size = static_cast<int64_t>(dtype_size(entry.dtype));
    const std::span<const std::byte> bytes = converted_(chunk, entry.dtype, entry.name);
    SafetensorsWriter& writer = file(shard);
    block.box.for_each_run(first, chunk.elements(), [&](int64_t index, int64_t place, int64_t n) {
      writer.write(number, place * size, bytes.subspan((index - first) * size, n * size));
    });
    advance();
    if (writer.missing() == 0) finish(shard);
  }

  // Finishes the files without a byte, too.
  void finish() {
    for (size_t shard = 0; shard < shards_.size(); ++shard)
      if (!finished_[shard]) finish(shard);
  }

 private:
  SafetensorsWriter& file(size_t shard) {
    if (!open_[shard]) {
      std::vector<TensorEntry> entries;
      for (const HubTensor& tensor : shards_[shard]) entries.push_back(tensor.entry);
      open_[shard].emplace(folder_ + "/" + files_.name(files_.first + static_cast<int64_t>(shard)), entries);
    }
    return *open_[shard];
  }

  void finish(size_t shard) {
    file(shard).finish();
    open_[shard].reset();
    finished_[shard] = true;
    advance();
  }

  void advance() const {
    if (options_.advanced) options_.advanced();
  }

  struct Entry {
    size_t shard, number;
  };
  const std::vector<Shard>& shards_;
  const Files& files_;
  const SaveOptions& options_;
  const std::string folder_;
  std::unordered_map<std::string, Entry> places_;
  std::vector<std::optional<SafetensorsWriter>> open_;
  std::vector<bool> finished_ = std::vector<bool>(shards_.size());
  Converter converted_;
};

void write_weights(Ctx& ctx, const State& state, const SaveOptions& options, ShardFiles& files) {
  Readback readback(ctx, ctx.like_gpu() ? Readback::Buffers::kTwo : Readback::Buffers::kNone);
  state.for_each_saved(ctx, saves_masters(state, options), [&](std::span<const State::Saved> params) {
    std::vector<Tensor> pieces;
    for (const auto& [param, values] : params)
      for (const HfBlock& block : state.spec(param).blocks)
        pieces.push_back(values.view({values.elements()}).slice(block.offset, block.elements()));
    readback.start(std::move(pieces));
    for (const auto& [param, values] : params)
      for (const HfBlock& block : state.spec(param).blocks)
        for (int64_t done = 0; done < block.elements();) {
          const Tensor chunk = readback.next();
          files.write(block, done, chunk);
          done += chunk.elements();
        }
  });
  files.finish();
}

void write_side_files(const SaveOptions& options, const std::string& folder) {
  for (const SideFile& file : options.side_files) write_file(folder + "/" + file.name, file.content);
  write_file(folder + "/" + kConfigFile,
             options.dtype ? with_dtype(options.config_json, *options.dtype) : options.config_json);
}

}  // namespace

DType saved_dtype(const State& state, const SaveOptions& options, int param, const HfBlock& block) {
  if (options.dtype) return *options.dtype;
  if (!is_stored(state, param)) return state.weight(param).dtype;
  return *options.source->locate(block.name, block.stored_shape()).stored->dtype;
}

bool saves_masters(const State& state, const SaveOptions& options) {
  if (!state.types().masters) return false;
  for (int param = 0; param < state.size(); ++param) {
    const ParamSpec& spec = state.spec(param);
    const DType held = spec.dtype.value_or(state.types().weights);
    if (!spec.trainable || held == DType::kF32 || (!options.dtype && !is_stored(state, param))) continue;
    for (const auto& blocks : {spec.blocks, spec.elsewhere})
      for (const HfBlock& block : blocks)
        if (saved_dtype(state, options, param, block) != held) return true;
  }
  return false;
}

void save_checkpoint(Ctx& ctx, const State& state, const SaveOptions& options, Communicator& world) {
  MT_CHECK(options.dtype || options.source);
  const Frame frame(ctx);
  std::vector<HubTensor> tensors = hub_tensors(state);
  choose_dtypes(tensors, options);
  const std::vector<Shard> shards = split(std::move(tensors), options.max_shard_size);
  const Files files = name_files(ctx, shards, world);
  std::optional<StagedFolder> folder;
  if (world.rank() == 0) folder.emplace(options.out_folder);
  const std::string path = gather_texts(ctx, world, "folder to save to", folder ? folder->path() : "")[0];
  ShardFiles shard_files(shards, files, options, path);
  write_weights(ctx, state, options, shard_files);
  barrier(ctx, world, "end of saving");  // all files are there
  if (folder) {
    write_side_files(options, path);
    if (files.count > 1) write_file(path + "/" + kIndexFile, format_index(files.weight_map, files.total_size));
  }
  if (options.with_more) options.with_more(path);
  if (folder) folder->commit();
  barrier(ctx, world, "checkpoint in place");
}

void save_checkpoint(Ctx& ctx, const State& state, const SaveOptions& options) {
  save_checkpoint(ctx, state, options, *make_single_communicator());
}

}  // namespace mixtune
