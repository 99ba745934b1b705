// How far the weights of two models lie apart, tensor by tensor.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/progress_line.h"
#include "checkpoint/hf_folder.h"
#include "state/state.h"

namespace mixtune {

struct ComparedTensor {
  struct Side {
    DType dtype;  // in the file
    Shape shape;
  };
  std::string name;          // the hub's
  std::optional<Side> a, b;  // none: that model has no such tensor
  int64_t differing = 0;     // elements that are not the same number; 0 and -0 are two
  double largest = 0;        // |a - b|
  double mean = 0;           // of |a - b|
  double relative = 0;       // ||a - b|| / ||a||; infinite where a alone is all zeros

  // Whether there are numbers: both models have it, in one shape.
  bool is_compared() const { return a && b && a->shape == b->shape; }
  // Whether it has the same bits in both.
  bool is_same() const { return is_compared() && a->dtype == b->dtype && differing == 0; }
};

// A model's files, and its tensors (check_weights), for which no memory is needed.
struct ComparedModel {
  const HfFolder& folder;
  const State& shape;
};

// All tensors of both, in the order of `a`, then what `b` alone has. Sums are made in fp64, in an order that is always
// the same. Reads every byte once and holds 128 MiB of them at most; `progress`, if any, is told how far it is. Throws
// UserError where a value is not finite.
std::vector<ComparedTensor> compare_models(const ComparedModel& a, const ComparedModel& b,
                                           const BytesDone& progress = {});

}  // namespace mixtune
