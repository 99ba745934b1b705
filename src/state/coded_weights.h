// CodedWeights: the weights that a State holds in 4 bits (kernels/four_bit/nf4.h), doubly quantised, each Hugging Face
// tensor by itself. They are not trained; ops read what they stand for, rounded to bf16.
#pragma once

#include <vector>

#include "kernels/four_bit/nf4.h"
#include "state/param_layout.h"
#include "tensor/ctx.h"
#include "tensor/memory.h"

namespace mixtune {

class CodedWeights {
 public:
  // Has none.
  CodedWeights() = default;
  // `arena` has bytes(layout), and outlives this.
  CodedWeights(const ParamLayout& layout, Arena& arena);

  static size_t bytes(const ParamLayout& layout);

  // Makes codes of a block's values [n], fp32 or (on a GPU) bf16.
  void encode(Ctx& ctx, int param, size_t block, const Tensor& values);
  // Fills `to`, of the parameter's shape.
  void decode(Ctx& ctx, int param, const Tensor& to) const;
  // The parts of a block, for who has codes already. Their nested_map is there after the first encode or this.
  const Nf4Tensor& parts(Ctx& ctx, int param, size_t block);

 private:
  void fill_map(Ctx& ctx);

  std::vector<std::vector<Nf4Tensor>> blocks_;  // by parameter; of those in 4 bits
  Tensor map_;
  bool has_map_ = false;
};

}  // namespace mixtune
