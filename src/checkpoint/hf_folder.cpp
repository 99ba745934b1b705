#include "checkpoint/hf_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "base/contained.h"
#include "base/error.h"
#include "base/log.h"
#include "checkpoint/convert.h"
#include "checkpoint/foreign_folder.h"
#include "checkpoint/four_bit.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMoe = ".block_sparse_moe.";
constexpr std::string_view kModelPrefix = "model.", kRouter = ".gate.weight";

// A name under which a hub tensor may be stored: whole, or as part `part` of the `parts` that each expert has.
struct Alias {
  std::string name;
  std::optional<int64_t> expert;
  int64_t part = 0, parts = 1;
};

// The packed tensor that holds "experts.3.w1.weight", say; none for other names.
std::optional<Alias> packed_expert(std::string_view head, std::string_view tail) {
  constexpr std::string_view kExperts = "experts.", kWeight = ".weight";
  if (!tail.starts_with(kExperts) || !tail.ends_with(kWeight)) return {};
  tail = tail.substr(kExperts.size(), tail.size() - kExperts.size() - kWeight.size());
  int64_t expert = 0;
  const auto [end, error] = std::from_chars(tail.data(), tail.data() + tail.size(), expert);
  const std::string_view matrix(end, static_cast<size_t>(tail.data() + tail.size() - end));
  if (error != std::errc() || expert < 0) return {};
  if (matrix == ".w1") return Alias{fmt::format("{}.mlp.experts.gate_up_proj", head), expert, 0, 2};
  if (matrix == ".w3") return Alias{fmt::format("{}.mlp.experts.gate_up_proj", head), expert, 1, 2};
  if (matrix == ".w2") return Alias{fmt::format("{}.mlp.experts.down_proj", head), expert, 0, 1};
  return {};
}

std::vector<Alias> aliases(const std::string& hub_name) {
  std::vector<Alias> result = {{hub_name, {}}};
  if (const size_t moe = hub_name.find(kMoe); moe != std::string::npos) {
    const std::string_view head = std::string_view(hub_name).substr(0, moe);
    const std::string_view tail = std::string_view(hub_name).substr(moe + kMoe.size());
    if (tail == "gate.weight") result.push_back({fmt::format("{}.mlp.gate.weight", head), {}});
    if (auto packed = packed_expert(head, tail)) result.push_back(*std::move(packed));
  }
  const size_t with_prefix = result.size();
  for (size_t i = 0; i < with_prefix; ++i)
    if (result[i].name.starts_with(kModelPrefix)) {
      result.push_back(result[i]);
      result.back().name.erase(0, kModelPrefix.size());
    }
  return result;
}

bool fits(const Alias& alias, const Shape& stored, const Shape& wanted) {
  if (!alias.expert) return stored == wanted;
  return wanted.rank() == 2 && stored.rank() == 3 && *alias.expert < stored[0] &&
         stored[1] == alias.parts * wanted[0] && stored[2] == wanted[1];
}

void check_folder(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) return;
  if (fs::exists(status))
    throw UserError(printable_path(path), "is a file, not a model folder", "give the folder that holds config.json");
  throw UserError(
      printable_path(path), "there is no such model folder",
      "give the path of a downloaded checkpoint ('hf download NAME --local-dir DIR' gets one from the hub)");
}

std::vector<std::string> weight_files(const std::string& folder, WeightMap& weight_map) {
  std::error_code ignored;
  if (fs::exists(folder + "/" + kWeightsFile, ignored)) return {kWeightsFile};
  if (!fs::exists(folder + "/" + kIndexFile, ignored)) {
    if (const auto foreign = foreign_folder(folder))
      throw UserError(printable_path(folder), foreign->what, foreign->mend);
    throw UserError(printable_path(folder), fmt::format("has neither {} nor {}", kWeightsFile, kIndexFile),
                    "give the folder of a whole checkpoint");
  }
  const std::string index = path_within(folder, kIndexFile);
  weight_map = parse_index(read_small_file(index, kMaxIndexBytes, "get the checkpoint again"), printable_path(index));
  std::set<std::string> names;
  for (const auto& [tensor, file] : weight_map) names.insert(file);
  return {names.begin(), names.end()};
}

// Checks that tensors of the index are in the files it says. Returns the name of a tensor it does not list, or "".
std::string check_index(const WeightMap& weight_map, const std::vector<SafetensorsFile>& files) {
  size_t found = 0;
  std::string unlisted;
  for (const SafetensorsFile& file : files)
    for (const auto& [name, tensor] : file.tensors()) {
      const auto entry = weight_map.find(name);
      if (entry == weight_map.end()) {
        unlisted = name;
        continue;
      }
      if (fs::path(file.path()).filename() != entry->second)
        throw UserError(printable_path(file.path()),
                        fmt::format("holds tensor '{}', which {} places elsewhere", printable(name), kIndexFile),
                        "the files are not of one checkpoint: get it again");
      ++found;
    }
  if (found == weight_map.size()) return unlisted;
  for (const auto& [name, file_name] : weight_map)
    for (const SafetensorsFile& file : files)
      if (fs::path(file.path()).filename() == file_name && file.find(name) == nullptr)
        throw UserError(printable_path(file.path()),
                        fmt::format("lacks tensor '{}', which {} places there", printable(name), kIndexFile),
                        "the files are not of one checkpoint: get it again");
  return unlisted;
}

std::string describe_four_bit(const std::vector<std::string>& names) {
  const auto routers = std::ranges::count_if(names, [](const std::string& name) { return name.ends_with(kRouter); });
  return fmt::format("{} tensors in 4 bits (NF4{}) are dequantised as they are read", names.size(),
                     routers == 0 ? "" : fmt::format("; routers among them: {}", routers));
}

}  // namespace

HfFolder::HfFolder(const std::string& path) : path_(path) {
  check_folder(path);
  for (const std::string& name : weight_files(path, weight_map_)) files_.emplace_back(path_within(path, name));
  if (!weight_map_.empty())
    if (const std::string unlisted = check_index(weight_map_, files_); !unlisted.empty())
      log_warning(
          "{}: {} does not list all tensors of its files, as '{}': one that the model has no place for is ignored",
          printable_path(path), kIndexFile, printable(unlisted));
  if (const std::vector<std::string> joined = join_four_bit(files_); !joined.empty())
    log_info("{}: {}", printable_path(path), describe_four_bit(joined));
}

bool HfFolder::lists(const std::string& stored_name) const {
  return weight_map_.empty() || weight_map_.contains(stored_name);
}

bool HfFolder::find(const std::string& stored_name, Found& found) const {
  for (const SafetensorsFile& file : files_)
    if (const auto tensor = file.tensors().find(stored_name); tensor != file.tensors().end()) {
      found = {&file, tensor};
      return true;
    }
  return false;
}

HfFolder::Location HfFolder::locate(const std::string& hub_name, const Shape& shape) const {
  for (const Alias& alias : aliases(hub_name)) {
    Found found{};
    if (!find(alias.name, found)) continue;
    const StoredTensor& stored = found.tensor->second;
    const auto fail = [&](const std::string& what, std::string_view mend) {
      throw UserError(printable_path(found.file->path()), fmt::format("tensor '{}' {}", alias.name, what), mend);
    };
    if (!fits(alias, stored.shape, shape)) {
      const std::string wanted =
          alias.expert ? fmt::format("[E, {}, {}], E > {}", alias.parts * shape[0], shape[1], *alias.expert)
                       : shape.str();
      fail(fmt::format("has shape {}, but config.json asks for {}", stored.shape.str(), wanted),
           "the weights and config.json are not of one model");
    }
    if (!stored.dtype || !is_weight_dtype(*stored.dtype))
      fail(fmt::format("is of type {}", printable(stored.dtype_text)),
           "mixtune reads F32, BF16, F16 and bitsandbytes' NF4: convert the checkpoint with transformers");
    const int64_t part = alias.expert ? *alias.expert * alias.parts + alias.part : 0;
    return {found.file, &found.tensor->first, &stored, part * shape.elements()};
  }
  throw UserError(printable_path(path_), fmt::format("has no tensor '{}'", hub_name),
                  "the checkpoint is incomplete, or config.json is of another model");
}

StoredValues HfFolder::stored(const HfBlock& block) const {
  const Location from = locate(block.name, block.stored_shape());
  const StoredTensor& tensor = *from.stored;
  if (tensor.four_bit) return {from.file, tensor.begin, *tensor.dtype, tensor.four_bit.get(), from.first};
  return {from.file, tensor.begin + from.first * dtype_size(*tensor.dtype), *tensor.dtype};
}

void HfFolder::check_unchanged() const {
  for (const SafetensorsFile& file : files_) file.file().check_unchanged();
}

void throw_not_finite(const SafetensorsFile& file, const std::string& tensor) {
  file.file().check_unchanged();
  throw UserError(printable_path(file.path()), fmt::format("tensor '{}' holds NaN or infinity", tensor),
                  "the checkpoint is damaged, or comes from a run that went bad: use another");
}

uint64_t HfFolder::bytes() const {
  uint64_t sum = 0;
  for (const SafetensorsFile& file : files_)
    for (const auto& [name, tensor] : file.tensors())
      sum += tensor.bytes() + (tensor.four_bit ? tensor.four_bit->bytes_beside_codes() : 0);
  return sum;
}

bool HfFolder::packed() const {
  return std::ranges::any_of(files_, [](const SafetensorsFile& file) {
    return std::ranges::any_of(file.tensors(), [](const auto& item) { return item.first.ends_with(".gate_up_proj"); });
  });
}

DType HfFolder::stored_dtype() const {
  std::map<DType, uint64_t> bytes;
  for (const SafetensorsFile& file : files_)
    for (const auto& [name, tensor] : file.tensors())
      if (tensor.dtype && is_weight_dtype(*tensor.dtype)) bytes[*tensor.dtype] += tensor.bytes();
  if (bytes.empty())
    throw UserError(printable_path(path_), "holds no F32, BF16 or F16 tensor",
                    "convert the checkpoint with transformers");
  return std::ranges::max_element(bytes, {}, [](const auto& item) { return item.second; })->first;
}

}  // namespace mixtune
