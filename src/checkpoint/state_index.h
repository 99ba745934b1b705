// StateIndex: which ranges of which tensors a checkpoint's state/ has, and where (checkpoint/training_state.h).
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/safetensors.h"
#include "tensor/box.h"

namespace mixtune {

// A range of a tensor in a file.
struct StatePiece {
  const SafetensorsFile* file;
  const StoredTensor* stored;
  BoxRange range;
};

// Neighbouring elements in a file that are neighbours in what was asked for, there from `to` on.
struct StateRun {
  const SafetensorsFile* file;
  uint64_t begin;  // byte
  DType dtype;
  int64_t to, count;
};

class StateIndex {
 public:
  static bool is_in(const std::string& checkpoint);  // whether it has a state/ with an index
  // Reads CHECKPOINT/state/index.json and the headers of the files that it names. Nothing in it is trusted: throws
  // UserError unless each piece is in its file as the index says.
  explicit StateIndex(const std::string& checkpoint);

  // Whether it has weights of the tensor, which the checkpoint's own files have rounded.
  bool has_weight(const std::string& tensor) const { return finer_.contains(tensor); }
  // The runs that fill `wanted` with the weights of `tensor`, in the order of its elements. Throws UserError where the
  // pieces do not have each of them once.
  std::vector<StateRun> weight_runs(const std::string& tensor, const BoxRange& wanted) const;

 private:
  [[noreturn]] void fail(const std::string& tensor, std::string_view kind, std::string_view what) const;
  const SafetensorsFile& open(const std::string& name);

  std::string folder_, where_;
  std::map<std::string, SafetensorsFile> files_;
  std::map<std::string, std::vector<StatePiece>> weights_;  // by tensor
  std::set<std::string> finer_;
};

}  // namespace mixtune
