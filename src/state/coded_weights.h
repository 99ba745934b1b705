// CodedWeights: the weights that a State holds as codes, each Hugging Face tensor by itself: in NF4, doubly quantised
// (kernels/four_bit/nf4.h), or in FP8 (kernels/eight_bit/fp8_weight.h). They are not trained; ops read what they stand
// for, of NF4 rounded to bf16.
#pragma once

#include <variant>
#include <vector>

#include "kernels/eight_bit/fp8_weight.h"
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
  // The parts of a block in NF4, for who has codes already. Their nested_map is there after the first encode or this.
  const Nf4Tensor& nf4(Ctx& ctx, int param, size_t block);

 private:
  using Block = std::variant<Nf4Tensor, Fp8Weight>;

  void fill_map(Ctx& ctx);

  std::vector<std::vector<Block>> blocks_;  // by parameter; of those held as codes
  Tensor map_;                              // of NF4 alone
  bool has_map_ = false;
};

}  // namespace mixtune
