#include "checkpoint/new_model_folder.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/output_file.h"
#include "checkpoint/index.h"
#include "checkpoint/shards.h"

namespace mixtune {

namespace {

std::vector<TensorEntry> new_entries(const State& shape, const SaveOptions& options) {
  std::vector<TensorEntry> entries;
  for (int param = 0; param < shape.size(); ++param)
    for (const HfBlock& block : shape.spec(param).blocks) {
      MT_CHECK(block.elements() == block.shape().elements() && block.added == 0);
      entries.push_back({block.name, saved_dtype(shape, options, param, block), block.shape()});
    }
  return entries;
}

void write_index(const std::vector<std::vector<TensorEntry>>& files, uint64_t bytes, const std::string& folder) {
  if (files.size() == 1) return;
  WeightMap weight_map;
  for (size_t i = 0; i < files.size(); ++i)
    for (const TensorEntry& entry : files[i]) weight_map.emplace(entry.name, shard_name(i, files.size()));
  write_file(folder + "/" + kIndexFile, format_index(weight_map, bytes));
}

}  // namespace

NewModelFolder::NewModelFolder(const State& shape, const SaveOptions& options)
    : options_(options),
      files_(cut_into_shards(new_entries(shape, options), options.max_shard_size)),
      writers_(files_.size()) {
  for (const auto& file : files_)
    for (const TensorEntry& entry : file) bytes_ += entry.bytes();
  folder_.emplace(options.out_folder);  // which removes what one that was killed has left
  check_space(options.out_folder, bytes_);
}

size_t NewModelFolder::tensors() const {
  size_t count = 0;
  for (const auto& file : files_) count += file.size();
  return count;
}

void NewModelFolder::write(size_t file, size_t entry, int64_t first, std::span<const std::byte> bytes) {
  std::optional<SafetensorsWriter>& writer = writers_[file];
  if (!writer) writer.emplace(folder_->path() + "/" + shard_name(file, files_.size()), files_[file]);
  writer->write(entry, first * dtype_size(files_[file][entry].dtype), bytes);
  if (writer->missing() > 0) return;
  writer->finish();
  writer.reset();
}

void NewModelFolder::commit() {
  MT_CHECK(std::ranges::none_of(writers_, [](const auto& writer) { return writer.has_value(); }));
  write_index(files_, bytes_, folder_->path());
  for (const SideFile& file : options_.side_files) write_file(folder_->path() + "/" + file.name, file.content);
  write_file(folder_->path() + "/" + kConfigFile, saved_config(options_));
  folder_->commit();
}

}  // namespace mixtune
