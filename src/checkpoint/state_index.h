// StateIndex: which ranges of which tensors a checkpoint's state/ has, and where (checkpoint/training_state.h).
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/safetensors.h"
#include "tensor/box.h"

namespace mixtune {

enum class StateKind : uint8_t { kWeight, kFirstMoment, kSecondMoment };
inline constexpr std::array kStateKinds = {StateKind::kWeight, StateKind::kFirstMoment, StateKind::kSecondMoment};
const char* name_of(StateKind kind);  // as the index spells it

// Neighbouring elements in a file that are neighbours in what was asked for, there from `to` on.
struct StateRun {
  const SafetensorsFile* file;
  uint64_t begin;  // byte
  DType dtype;
  int64_t to, count;
};

constexpr const char* kStateIndexFile = "index.json";

class StateIndex {
 public:
  using Key = std::pair<std::string, StateKind>;  // of a tensor

  static bool is_in(const std::string& checkpoint);  // whether it has a state/ with an index
  // Reads CHECKPOINT/state/index.json and the headers of the files that it names. Nothing in it is trusted: throws
  // UserError, with `mend`, unless each piece is in its file as the index says.
  StateIndex(const std::string& checkpoint, const char* mend);

  // Whether it must have weights of the tensor: the checkpoint's own files have them rounded.
  bool is_finer(const std::string& tensor) const { return finer_.contains(tensor); }
  bool has(const Key& key) const { return pieces_.contains(key); }
  // The runs that fill `wanted`, in the order of its elements. Throws UserError where the pieces do not have each of
  // them once.
  std::vector<StateRun> runs(const Key& key, const BoxRange& wanted) const;
  // Throws UserError where it has pieces of anything else.
  void check_known(const std::set<Key>& known) const;

 private:
  // A range of a tensor in a file.
  struct Piece {
    const SafetensorsFile* file;
    const StoredTensor* stored;
    BoxRange range;
  };
  template <class Json>
  void add(const Json& piece);
  [[noreturn]] void fail(const Key& key, std::string_view what) const;
  const SafetensorsFile& open(const std::string& name);

  std::string folder_, where_;
  const char* mend_;
  std::map<std::string, SafetensorsFile> files_;
  std::map<Key, std::vector<Piece>> pieces_;
  std::set<std::string> finer_;
};

}  // namespace mixtune
