#include "checkpoint/save.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <sstream>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/output_file.h"
#include "checkpoint/convert.h"
#include "checkpoint/counted_part.h"
#include "checkpoint/edit_config.h"
#include "checkpoint/hf_folder.h"
#include "checkpoint/index.h"
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
  // Wide types first, so that every tensor is aligned to its type; otherwise in the order in which they are written.
  for (Shard& shard : shards)
    std::ranges::stable_sort(shard, std::greater(),
                             [](const HubTensor& tensor) { return dtype_size(tensor.entry.dtype); });
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

// This rank's files, on the thread that writes. Each is open from the first of its bytes to the last.
class ShardFiles {
 public:
  ShardFiles(std::vector<Shard> shards, Files files, const std::string& folder)
      : shards_(std::move(shards)), files_(std::move(files)), folder_(folder), open_(shards_.size()) {
    for (size_t s = 0; s < shards_.size(); ++s)
      for (size_t e = 0; e < shards_[s].size(); ++e) places_[shards_[s][e].entry.name] = {s, e};
  }

  // Writes `chunk`: elements of the block from its index `first` on. Returns its file, if that is whole now.
  void write(const HfBlock& block, int64_t first, const Tensor& chunk, StoredFiles& written) {
    const auto& [shard, position] = places_.at(block.name);
    const size_t number = position;
    const TensorEntry& entry = shards_[shard][number].entry;
    const auto size = static_cast<int64_t>(dtype_size(entry.dtype));
    const std::span<const std::byte> bytes = converted_(chunk, entry.dtype, entry.name);
    SafetensorsWriter& writer = file(shard);
    block.box.for_each_run(first, chunk.elements(), [&](int64_t index, int64_t place, int64_t n) {
      writer.write(number, place * size, bytes.subspan((index - first) * size, n * size));
    });
    if (writer.missing() == 0) finish(shard, written);
  }

  // Finishes the files without a byte, too.
  void finish(StoredFiles& written) {
    for (size_t shard = 0; shard < shards_.size(); ++shard)
      if (!finished_[shard]) finish(shard, written);
  }

 private:
  std::string name(size_t shard) const { return files_.name(files_.first + static_cast<int64_t>(shard)); }

  SafetensorsWriter& file(size_t shard) {
    if (!open_[shard]) {
      std::vector<TensorEntry> entries;
      for (const HubTensor& tensor : shards_[shard]) entries.push_back(tensor.entry);
      open_[shard].emplace(folder_ + "/" + name(shard), entries);
    }
    return *open_[shard];
  }

  void finish(size_t shard, StoredFiles& written) {
    written[name(shard)] = file(shard).finish();
    open_[shard].reset();
    finished_[shard] = true;
  }

  struct Entry {
    size_t shard, number;
  };
  const std::vector<Shard> shards_;
  const Files files_;
  const std::string folder_;
  std::unordered_map<std::string, Entry> places_;
  std::vector<std::optional<SafetensorsWriter>> open_;
  std::vector<bool> finished_ = std::vector<bool>(shards_.size());
  Converter converted_;
};

// Elements of the block that a chunk of it begins with, counted up while they are written.
struct BlockPart {
  const HfBlock* block;
  int64_t first = 0;
};

void put_weights(Ctx& ctx, const State& state, const SaveOptions& options, std::shared_ptr<ShardFiles> files,
                 std::shared_ptr<StoredFiles> written, WriteBehind& behind) {
  state.for_each_saved(ctx, saves_masters(state, options), [&](std::span<const State::Saved> params) {
    for (const auto& [param, values] : params)
      for (const HfBlock& block : state.spec(param).blocks)
        behind.put(ctx, values.view({values.elements()}).slice(block.offset, block.elements()),
                   [=, part = std::make_shared<BlockPart>(&block)](const Tensor& chunk) {
                     files->write(*part->block, part->first, chunk, *written);
                     part->first += chunk.elements();
                   });
  });
  behind.then([=] { files->finish(*written); });
}

void check_space(const std::string& out_folder, uint64_t bytes) {
  if (const uint64_t free = free_space(parent_folder(out_folder)); free < bytes)
    throw Error(printable_path(out_folder),
                fmt::format("takes {}, and its disk has {} left", format_bytes(bytes), format_bytes(free)),
                "free some space on this disk or write to another");
}

std::string config_text(const SaveOptions& options) {
  return options.dtype ? with_dtype(options.config_json, *options.dtype) : options.config_json;
}

}  // namespace

DType saved_dtype(const State& state, const SaveOptions& options, int param, const HfBlock& block) {
  if (options.dtype) return *options.dtype;
  if (!is_stored(state, param)) return state.weight(param).dtype;
  return *options.source->locate(block.name, block.stored_shape()).stored->dtype;
}

SavedBytes saved_bytes(const State& state, const SaveOptions& options) {
  const bool masters = saves_masters(state, options);
  SavedBytes bytes;
  for (int param = 0; param < state.size(); ++param) {
    if (!state.saves(param)) continue;
    const DType held = (masters ? state.primary(param) : state.weight(param)).dtype;
    for (const HfBlock& block : state.spec(param).blocks) {
      bytes.copied += block.elements() * dtype_size(held);
      bytes.written += block.elements() * dtype_size(saved_dtype(state, options, param, block));
    }
  }
  return bytes;
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

PendingCheckpoint::PendingCheckpoint(Ctx& ctx, const State& state, const SaveOptions& options, Communicator& world,
                                     WriteBehind& behind)
    : behind_(behind) {
  MT_CHECK(options.dtype || options.source);
  const Frame frame(ctx);
  std::vector<HubTensor> tensors = hub_tensors(state);
  choose_dtypes(tensors, options);
  std::vector<Shard> shards = split(std::move(tensors), options.max_shard_size);
  Files files = name_files(ctx, shards, world);
  if (world.rank() == 0)
    try_to([&] {
      check_space(options.out_folder, files.total_size + options.more_bytes);
      staged_.emplace(options.out_folder);
    });
  folder_ = gather_texts(ctx, world, "folder to save to", staged_ ? staged_->path() : "")[0];
  if (folder_.empty()) return;
  if (world.rank() == 0) {
    for (const SideFile& file : options.side_files) put_file(file.name, file.content);
    put_file(kConfigFile, config_text(options));
    if (files.count > 1) put_file(kIndexFile, format_index(files.weight_map, files.total_size));
  }
  put_weights(ctx, state, options, std::make_shared<ShardFiles>(std::move(shards), std::move(files), folder_), written_,
              behind);
}

// What is wrong with a folder is the first failure of writing: all ranks go on together.
template <class F>
void PendingCheckpoint::try_to(F&& work) {
  try {
    work();
  } catch (...) {
    behind_.then([failure = std::current_exception()] { std::rethrow_exception(failure); });
  }
}

void PendingCheckpoint::make_folder(const std::string& name) {
  folders_.push_back(folder_ + "/" + name);
  try_to([this] {
    if (mkdir(folders_.back().c_str(), 0777) != 0)
      throw Error(printable_path(folders_.back()), fmt::format("cannot be made: {}", std::strerror(errno)),
                  "check the disk's space and the folder's permissions");
  });
}

void PendingCheckpoint::put_file(const std::string& name, std::string content) {
  behind_.then([=, path = folder_ + "/" + name, written = written_, content = std::move(content)] {
    write_file(path, content);
    (*written)[name] = stored_file(content);
  });
}

void PendingCheckpoint::commit() {
  for (const std::string& folder : folders_) sync_folder(folder);
  staged_->commit();
}

void save_checkpoint(Ctx& ctx, const State& state, const SaveOptions& options, Communicator& world) {
  WriteBehind behind(ctx, WriteBehind::kLeastBytes);
  PendingCheckpoint pending(ctx, state, options, world, behind);
  behind.wait();
  if (const std::exception_ptr failure = behind.take_failure()) std::rethrow_exception(failure);
  barrier(ctx, world, "end of saving");  // all files are there
  if (world.rank() == 0) pending.commit();
  barrier(ctx, world, "checkpoint in place");
}

void save_checkpoint(Ctx& ctx, const State& state, const SaveOptions& options) {
  save_checkpoint(ctx, state, options, *make_single_communicator());
}

}  // namespace mixtune
