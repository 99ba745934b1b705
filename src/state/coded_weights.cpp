#include "state/coded_weights.h"

#include <fmt/format.h>

namespace mixtune {

namespace {

int64_t blocks_of(const HfBlock& block) {
  return (block.elements() + kNf4Block - 1) / kNf4Block;
}
int64_t nested_blocks_of(const HfBlock& block) {
  return (blocks_of(block) + kNestedBlock - 1) / kNestedBlock;
}
size_t aligned(int64_t elements, DType dtype) {
  return align_up(static_cast<size_t>(elements) * dtype_size(dtype));
}

size_t bytes_of(const HfBlock& block) {
  return aligned((block.elements() + 1) / 2, DType::kU8) + aligned(blocks_of(block), DType::kU8) +
         aligned(nested_blocks_of(block), DType::kF32) + aligned(1, DType::kF32);
}

}  // namespace

size_t CodedWeights::bytes(const ParamLayout& layout) {
  size_t bytes = 0;
  for (int param = 0; param < layout.size(); ++param)
    if (layout.spec(param).in_four_bits)
      for (const HfBlock& block : layout.spec(param).blocks) bytes += bytes_of(block);
  return bytes > 0 ? bytes + aligned(std::ssize(dynamic_map()), DType::kF32) : 0;
}

CodedWeights::CodedWeights(const ParamLayout& layout, Arena& arena) : blocks_(layout.size()) {
  map_ = arena.allocate("map of absmax", {std::ssize(dynamic_map())}, DType::kF32);
  for (int param = 0; param < layout.size(); ++param) {
    if (!layout.spec(param).in_four_bits) continue;
    for (const HfBlock& block : layout.spec(param).blocks)
      blocks_[param].push_back(
          {.elements = block.elements(),
           .codes = arena.allocate(block.name, {(block.elements() + 1) / 2}, DType::kU8),
           .absmax = arena.allocate("absmax", {blocks_of(block)}, DType::kU8),
           .nested_absmax = arena.allocate("absmax of absmax", {nested_blocks_of(block)}, DType::kF32),
           .nested_map = map_,
           .offset = arena.allocate("mean of absmax", {1}, DType::kF32)});
  }
}

void CodedWeights::fill_map(Ctx& ctx) {
  if (has_map_ || ctx.is_meta()) return;
  copy(ctx, host_tensor(dynamic_map().data(), {std::ssize(dynamic_map())}), map_);
  wait(ctx);
  has_map_ = true;
}

const Nf4Tensor& CodedWeights::parts(Ctx& ctx, int param, size_t block) {
  fill_map(ctx);
  return blocks_[param][block];
}

void CodedWeights::encode(Ctx& ctx, int param, size_t block, const Tensor& values) {
  nf4_quantise(ctx, {.x = values, .to = parts(ctx, param, block)});
}

void CodedWeights::decode(Ctx& ctx, int param, const Tensor& to) const {
  std::vector<Nf4Dequantise> tensors;
  const Tensor flat = to.view({to.elements()});
  int64_t offset = 0;
  for (const Nf4Tensor& from : blocks_[param]) {
    tensors.push_back({.from = from, .to = flat.slice(offset, from.elements), .through = DType::kBF16});
    offset += from.elements;
  }
  nf4_dequantise(ctx, tensors);
}

}  // namespace mixtune
