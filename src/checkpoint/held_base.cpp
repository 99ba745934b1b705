#include "checkpoint/held_base.h"

#include <algorithm>

#include "checkpoint/encode_weights.h"

namespace mixtune {

namespace {

// To make the codes of any of these weights, and what they stand for.
size_t stack_bytes(const State& layout) {
  int64_t most = 0;
  for (int param = 0; param < layout.size(); ++param)
    if (layout.is_coded(param))
      for (const HfBlock& block : layout.spec(param).blocks) most = std::max(most, block.elements());
  return 2 * align_up(static_cast<size_t>(most) * sizeof(float));
}

}  // namespace

HeldBase::HeldBase(const HfFolder& folder, const State& layout)
    : folder_(folder), stack_("weights of a base", {}, stack_bytes(layout)) {
  for (int param = 0; param < layout.size(); ++param)
    if (layout.is_coded(param))
      for (const HfBlock& block : layout.spec(param).blocks)
        held_.emplace(block.name, Held{block.shape(), layout.spec(param).held_in});
}

std::span<const float> HeldBase::values(const std::string& tensor) {
  if (tensor == tensor_) return values_;
  const auto& [shape, precision] = held_.at(tensor);
  ParamSpec spec{.name = tensor, .shape = shape, .blocks = {{tensor, Box(shape)}}, .trainable = false};
  spec.held_in = precision;
  State state({spec}, {}, DType::kF32, State::Purpose::kInference);
  Ctx ctx{{}, stack_, stack_};
  encode_weights(ctx, folder_, state);
  const WeightUse weight(ctx, state, 0);
  const float* begin = (*weight).as<float>();
  values_.assign(begin, begin + shape.elements());
  tensor_ = tensor;
  return values_;
}

}  // namespace mixtune
