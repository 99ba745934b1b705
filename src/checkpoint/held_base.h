// HeldBase: a model's projections as a run beside them holds them (base_precision): what codes made of a folder's
// weights stand for, a tensor at a time.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/hf_folder.h"
#include "state/state.h"

namespace mixtune {

class HeldBase {
 public:
  // Of the weights that `layout` holds as codes; it needs no memory. The folder outlives this.
  HeldBase(const HfFolder& folder, const State& layout);

  bool has(const std::string& tensor) const { return held_.contains(tensor); }
  // A tensor's values, valid until the next call: those of a run on the CPU, and on a GPU where the folder's are bf16
  // or codes of the same kind. In memory is one tensor. Throws as load_weights does.
  std::span<const float> values(const std::string& tensor);

 private:
  struct Held {
    Shape shape;
    BasePrecision precision;
  };

  const HfFolder& folder_;
  std::map<std::string, Held> held_;
  Stack stack_;
  std::string tensor_;  // whose values these are
  std::vector<float> values_;
};

}  // namespace mixtune
