// NewModelFolder: a Hugging Face folder whose weights come from its user.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/staged.h"
#include "checkpoint/safetensors_writer.h"
#include "checkpoint/save.h"

namespace mixtune {

class NewModelFolder {
 public:
  // `shape` has the hub's tensors whole, and needs no memory. `options` lives on. Throws Error where the disk has no
  // room for the weights, and UserError where the folder exists.
  NewModelFolder(const State& shape, const SaveOptions& options);

  // The tensors of each file.
  const std::vector<std::vector<TensorEntry>>& files() const { return files_; }
  size_t tensors() const;
  uint64_t bytes() const { return bytes_; }  // of all tensors

  // Writes bytes of a file's tensor, from its element `first` on: each byte once. A thread at a time for one file,
  // several for several; a file is open until it is whole.
  void write(size_t file, size_t entry, int64_t first, std::span<const std::byte> bytes);
  // Once all are written: writes an index if there is more than one file, the side files and config.json, and gives the
  // folder its name. Without it nothing is left.
  void commit();

 private:
  const SaveOptions& options_;
  std::vector<std::vector<TensorEntry>> files_;
  uint64_t bytes_ = 0;
  std::optional<StagedFolder> folder_;
  std::vector<std::optional<SafetensorsWriter>> writers_;  // of files that are neither untouched nor whole
};

}  // namespace mixtune
