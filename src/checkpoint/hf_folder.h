// HfFolder: the weights of a Hugging Face Mixtral folder, under the names that the hub uses.
//
// The folder may hold one file or shards with an index, tensors one per expert (the hub's layout) or packed as
// transformers 5 has them in memory, names with or without the leading "model."; and bitsandbytes' NF4 (four_bit.h).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/index.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/stored_values.h"
#include "state/state.h"

namespace mixtune {

class HfFolder {
 public:
  // Reads the headers of all files, no weights. Throws UserError for whatever is wrong with them. Logs what of it is in
  // 4 bits.
  explicit HfFolder(const std::string& path);

  // Where a hub tensor lies: in `stored`, from element `first` on.
  struct Location {
    const SafetensorsFile* file;
    const std::string* stored_name;
    const StoredTensor* stored;
    int64_t first;
  };
  // Throws UserError where the tensor is missing, has another shape, or a type that weights cannot have.
  Location locate(const std::string& hub_name, const Shape& shape) const;

  // The whole tensor of a block. Throws as locate does.
  StoredValues stored(const HfBlock& block) const;

  // Whether the checkpoint counts a tensor of its files as a part of it: an index, if there is one, must list it.
  bool lists(const std::string& stored_name) const;

  // Throws Error if a file has changed since it was opened: what was read may then be of either content.
  void check_unchanged() const;

  const std::string& path() const { return path_; }
  const std::vector<SafetensorsFile>& files() const { return files_; }
  uint64_t bytes() const;      // of all tensors
  bool packed() const;         // one tensor holds all experts of a layer
  DType stored_dtype() const;  // the type of most of the bytes

 private:
  struct Found {
    const SafetensorsFile* file;
    StoredTensors::const_iterator tensor;
  };
  bool find(const std::string& stored_name, Found& found) const;

  std::string path_;
  WeightMap weight_map_;  // empty without an index
  std::vector<SafetensorsFile> files_;
};

// Throws a UserError: `tensor` of `file` is not finite. Throws an Error where the file has changed since it was opened.
[[noreturn]] void throw_not_finite(const SafetensorsFile& file, const std::string& tensor);

}  // namespace mixtune
