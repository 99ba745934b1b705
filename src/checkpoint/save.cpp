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
#include "checkpoint/edit_config.h"
#include "checkpoint/hf_folder.h"
#include "checkpoint/index.h"
#include "checkpoint/readback.h"
#include "parallel/ranks.h"

namespace mixtune {

namespace {

constexpr const char* kConfigFile = "config.json";

// A Hugging Face tensor and the parts of parameters that it is made of, in the order of its rows.
struct HubTensor {
  struct Piece {
    int64_t begin;
    Tensor values;
  };
  TensorEntry entry;
  Shape stored;  // in the checkpoint that it was loaded from
  std::vector<Piece> pieces;
};

using Shard = std::vector<HubTensor>;

void check_whole(const HubTensor& tensor) {
  int64_t next = 0;
  for (const HubTensor::Piece& piece : tensor.pieces) {
    MT_CHECK(piece.begin * (tensor.entry.shape.elements() / tensor.entry.shape[0]) == next);
    next += piece.values.elements();
  }
  MT_CHECK(next == tensor.entry.shape.elements());
}

// Of the parameters that this rank writes.
std::vector<HubTensor> hub_tensors(const State& state, const std::vector<Tensor>& params) {
  std::vector<HubTensor> tensors;
  std::unordered_map<std::string, size_t> places;
  for (int param = 0; param < state.size(); ++param) {
    if (!params[param]) continue;
    const Tensor all = params[param].view({params[param].elements()});
    for (const HfSlice& slice : state.spec(param).slices) {
      const Shape stored = slice.stored_shape();
      const auto [place, is_new] = places.emplace(slice.name, tensors.size());
      if (is_new) tensors.push_back({{slice.name, DType::kF32, slice.shape}, stored, {}});
      tensors[place->second].pieces.push_back({slice.begin, all.slice(slice.offset, slice.elements())});
    }
  }
  for (HubTensor& tensor : tensors) {
    std::ranges::sort(tensor.pieces, {}, &HubTensor::Piece::begin);
    check_whole(tensor);
  }
  return tensors;
}

void choose_dtypes(std::vector<HubTensor>& tensors, const SaveOptions& options) {
  if (options.dtype) {
    for (HubTensor& tensor : tensors) tensor.entry.dtype = *options.dtype;
    return;
  }
  for (HubTensor& tensor : tensors)
    tensor.entry.dtype = *options.source->locate(tensor.entry.name, tensor.stored).stored->dtype;
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
  // The reference library's order: by name, wide types first, so that every tensor is aligned to its type.
  for (Shard& shard : shards)
    std::ranges::sort(shard, {}, [](const HubTensor& tensor) {
      return std::pair(-static_cast<int>(dtype_size(tensor.entry.dtype)), std::string_view(tensor.entry.name));
    });
  return shards;
}

// Chunks of weights as the bytes of a file's type.
class Converter {
 public:
  // Valid until the next call. Throws Error where a value is not finite or too large for `dtype`.
  std::span<const std::byte> operator()(const Tensor& chunk, DType dtype, const std::string& name) {
    if (!all_finite(chunk))
      throw Error(name, "holds NaN or infinity: training went bad, nothing is saved",
                  "lower learning_rate or raise adam_epsilon; earlier checkpoints are intact", ExitCode::kWentBad);
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
    widen(bytes_of(chunk), chunk.dtype, host_tensor(wide_.data(), {chunk.elements()}));
    return wide_;
  }

  std::vector<float> wide_;
  std::vector<std::byte> narrow_;
};

// Readback has the pieces of all shards in the order in which they are written here.
void write_shard(const Shard& shard, Readback& readback, const std::string& path,
                 const std::function<void()>& advanced) {
  std::vector<TensorEntry> entries;
  for (const HubTensor& tensor : shard) entries.push_back(tensor.entry);
  SafetensorsWriter writer(path, entries);
  Converter converted;
  for (const auto& [entry, stored, pieces] : shard)
    for (int64_t left = entry.shape.elements(); left > 0;) {
      const Tensor chunk = readback.next();
      writer.write(converted(chunk, entry.dtype, entry.name));
      if (advanced) advanced();
      left -= chunk.elements();
    }
  writer.finish();
  if (advanced) advanced();
}

Readback read_back(Ctx& ctx, const std::vector<Shard>& shards) {
  std::vector<Tensor> pieces;
  for (const Shard& shard : shards)
    for (const HubTensor& tensor : shard)
      for (const HubTensor::Piece& piece : tensor.pieces) pieces.push_back(piece.values);
  return Readback(ctx, std::move(pieces), ctx.like_gpu() ? Readback::Buffers::kTwo : Readback::Buffers::kNone);
}

// The files of a checkpoint, as all ranks write them: which are this rank's, and what is in each.
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

void write_weights(Ctx& ctx, const std::vector<Shard>& shards, const Files& files, const SaveOptions& options,
                   const std::string& folder) {
  Readback readback = read_back(ctx, shards);
  for (size_t i = 0; i < shards.size(); ++i)
    write_shard(shards[i], readback, folder + "/" + files.name(files.first + static_cast<int64_t>(i)),
                options.advanced);
}

void write_side_files(const SaveOptions& options, const std::string& folder) {
  for (const SideFile& file : options.side_files) write_file(folder + "/" + file.name, file.content);
  write_file(folder + "/" + kConfigFile,
             options.dtype ? with_dtype(options.config_json, *options.dtype) : options.config_json);
}

}  // namespace

bool saves_masters(const State& state, const SaveOptions& options) {
  if (!state.types().masters) return false;
  if (options.dtype) return *options.dtype != state.dtype();
  for (int param = 0; param < state.size(); ++param)
    for (const auto& slices : {state.spec(param).slices, state.spec(param).elsewhere})
      for (const HfSlice& slice : slices)
        if (*options.source->locate(slice.name, slice.stored_shape()).stored->dtype != state.dtype()) return true;
  return false;
}

void save_checkpoint(Ctx& ctx, const State& state, const SaveOptions& options, Communicator& world) {
  MT_CHECK(options.dtype || options.source);
  const Frame frame(ctx);
  std::vector<HubTensor> tensors = hub_tensors(state, state.to_save(ctx, saves_masters(state, options)));
  choose_dtypes(tensors, options);
  const std::vector<Shard> shards = split(std::move(tensors), options.max_shard_size);
  const Files files = name_files(ctx, shards, world);
  std::optional<StagedFolder> folder;
  if (world.rank() == 0) folder.emplace(options.out_folder);
  const std::string path = gather_texts(ctx, world, "folder to save to", folder ? folder->path() : "")[0];
  write_weights(ctx, shards, files, options, path);
  gather_texts(ctx, world, "end of saving", "");  // all files are there
  if (folder) {
    write_side_files(options, path);
    if (files.count > 1) write_file(path + "/" + kIndexFile, format_index(files.weight_map, files.total_size));
    folder->commit();
  }
  gather_texts(ctx, world, "checkpoint in place", "");
}

void save_checkpoint(Ctx& ctx, const State& state, const SaveOptions& options) {
  save_checkpoint(ctx, state, options, *make_single_communicator());
}

}  // namespace mixtune
