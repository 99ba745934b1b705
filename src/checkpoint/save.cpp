#include "checkpoint/save.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "checkpoint/convert.h"
#include "checkpoint/hf_folder.h"
#include "checkpoint/index.h"
#include "checkpoint/side_files.h"
#include "checkpoint/staged_folder.h"

namespace mixtune {

namespace {

constexpr const char* kConfigFile = "config.json";
constexpr size_t kMaxConfigBytes = 1 << 20;
constexpr int64_t kChunk = 4 << 20;  // elements converted at a time

// A Hugging Face tensor and the parts of parameters that it is made of, in the order of its rows.
struct HubTensor {
  struct Piece {
    int64_t begin;
    std::span<const float> values;
  };
  TensorEntry entry;
  std::vector<Piece> pieces;
};

using Shard = std::vector<HubTensor>;

void check_whole(const HubTensor& tensor) {
  int64_t next = 0;
  for (const HubTensor::Piece& piece : tensor.pieces) {
    MT_CHECK(piece.begin * (tensor.entry.shape.elements() / tensor.entry.shape[0]) == next);
    next += static_cast<int64_t>(piece.values.size());
  }
  MT_CHECK(next == tensor.entry.shape.elements());
}

std::vector<HubTensor> hub_tensors(const State& state) {
  std::vector<HubTensor> tensors;
  std::unordered_map<std::string, size_t> places;
  for (int param = 0; param < state.size(); ++param)
    for (const HfSlice& slice : state.spec(param).slices) {
      const auto [place, is_new] = places.emplace(slice.name, tensors.size());
      if (is_new) tensors.push_back({{slice.name, DType::kF32, slice.shape}, {}});
      const float* values = state.weight(param).as<float>() + slice.offset;
      tensors[place->second].pieces.push_back({slice.begin, {values, static_cast<size_t>(slice.elements())}});
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
    tensor.entry.dtype = *options.source->locate(tensor.entry.name, tensor.entry.shape).stored->dtype;
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

void write_tensor(SafetensorsWriter& writer, const HubTensor& tensor, std::vector<std::byte>& buffer) {
  const DType dtype = tensor.entry.dtype;
  for (const HubTensor::Piece& piece : tensor.pieces) {
    if (!all_finite(piece.values))
      throw Error(tensor.entry.name, "holds NaN or infinity: training went bad, nothing is saved",
                  "lower learning_rate or raise adam_epsilon; earlier checkpoints are intact", ExitCode::kWentBad);
    if (dtype == DType::kF32) {
      writer.write(std::as_bytes(piece.values));
      continue;
    }
    for (size_t done = 0; done < piece.values.size();) {
      const auto part = piece.values.subspan(done, std::min<size_t>(kChunk, piece.values.size() - done));
      buffer.resize(part.size() * dtype_size(dtype));
      if (!narrow(part, dtype, buffer))
        throw Error(tensor.entry.name, fmt::format("holds a value too large for {}", dtype_name(dtype)),
                    "set save_dtype: fp32");
      writer.write(buffer);
      done += part.size();
    }
  }
}

void write_shard(const Shard& shard, const std::string& path) {
  std::vector<TensorEntry> entries;
  for (const HubTensor& tensor : shard) entries.push_back(tensor.entry);
  SafetensorsWriter writer(path, entries);
  std::vector<std::byte> buffer;
  for (const HubTensor& tensor : shard) write_tensor(writer, tensor, buffer);
  writer.finish();
}

void write_weights(const std::vector<Shard>& shards, const std::string& folder) {
  if (shards.size() == 1) return write_shard(shards[0], folder + "/" + kWeightsFile);
  WeightMap weight_map;
  uint64_t total_size = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    write_shard(shards[i], folder + "/" + name);
    for (const HubTensor& tensor : shards[i]) {
      weight_map.emplace(tensor.entry.name, name);
      total_size += tensor.entry.bytes();
    }
  }
  write_file(folder + "/" + kIndexFile, format_index(weight_map, total_size));
}

void write_side_files(const SaveOptions& options, const std::string& folder) {
  for (const MappedFile& file : options.side_files)
    write_file(folder + "/" + std::filesystem::path(file.path()).filename().string(), file.bytes());
  write_file(folder + "/" + kConfigFile,
             options.dtype ? with_dtype(options.config_json, *options.dtype) : options.config_json);
}

}  // namespace

ModelFolder::ModelFolder(const std::string& path)
    : weights_(path),
      config_json_(read_small_file(path + "/" + kConfigFile, kMaxConfigBytes, "check that it is a config.json")) {
  for (const std::string& name : side_files(path))
    if (name != kConfigFile) side_files_.emplace_back(path + "/" + name);
}

SaveOptions ModelFolder::save_options(const std::string& out_folder) const {
  return {.out_folder = out_folder, .config_json = config_json_, .side_files = side_files_, .source = &weights_};
}

void save_checkpoint(const State& state, const SaveOptions& options) {
  MT_CHECK(options.dtype || options.source);
  std::vector<HubTensor> tensors = hub_tensors(state);
  choose_dtypes(tensors, options);
  StagedFolder folder(options.out_folder);
  write_side_files(options, folder.path());
  write_weights(split(std::move(tensors), options.max_shard_size), folder.path());
  folder.commit();
}

uint64_t parse_size(std::string_view text) {
  struct Unit {
    std::string_view name;
    uint64_t bytes;
  };
  constexpr auto kUnits = std::to_array<Unit>({{"", 1},
                                               {"KB", 1'000},
                                               {"MB", 1'000'000},
                                               {"GB", 1'000'000'000},
                                               {"TB", 1'000'000'000'000},
                                               {"KiB", 1ull << 10},
                                               {"MiB", 1ull << 20},
                                               {"GiB", 1ull << 30},
                                               {"TiB", 1ull << 40}});
  uint64_t number = 0, bytes = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view name(rest, static_cast<size_t>(text.data() + text.size() - rest));
  const auto unit = std::ranges::find(kUnits, name, &Unit::name);
  if (error != std::errc() || unit == kUnits.end() || __builtin_mul_overflow(number, unit->bytes, &bytes) || bytes == 0)
    throw UserError("", fmt::format("'{}' is not a size", printable(text)),
                    "write a whole number and a unit: 500MB, 5GB or 4GiB");
  return bytes;
}

}  // namespace mixtune
