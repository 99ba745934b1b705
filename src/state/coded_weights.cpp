#include "state/coded_weights.h"

#include <utility>

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

size_t nf4_bytes_of(const HfBlock& block) {
  return aligned((block.elements() + 1) / 2, DType::kU8) + aligned(blocks_of(block), DType::kU8) +
         aligned(nested_blocks_of(block), DType::kF32) + aligned(1, DType::kF32);
}
size_t fp8_bytes_of(const HfBlock& block) {
  return aligned(block.elements(), DType::kF8E4M3) + aligned(fp8_weight_scales(block.shape()).elements(), DType::kF32);
}
size_t map_bytes() {
  return aligned(std::ssize(dynamic_map()), DType::kF32);
}

Nf4Tensor allocate_nf4(const HfBlock& block, const Tensor& map, Arena& arena) {
  return {.elements = block.elements(),
          .codes = arena.allocate(block.name, {(block.elements() + 1) / 2}, DType::kU8),
          .absmax = arena.allocate("absmax", {blocks_of(block)}, DType::kU8),
          .nested_absmax = arena.allocate("absmax of absmax", {nested_blocks_of(block)}, DType::kF32),
          .nested_map = map,
          .offset = arena.allocate("mean of absmax", {1}, DType::kF32)};
}
Fp8Weight allocate_fp8(const HfBlock& block, Arena& arena) {
  return {.codes = arena.allocate(block.name, block.shape(), DType::kF8E4M3),
          .scales = arena.allocate("scales", fp8_weight_scales(block.shape()), DType::kF32)};
}

}  // namespace

size_t CodedWeights::bytes(const ParamLayout& layout) {
  size_t bytes = 0;
  bool needs_map = false;
  for (int param = 0; param < layout.size(); ++param) {
    const ParamSpec& spec = layout.spec(param);
    if (!spec.is_coded()) continue;
    const bool nf4 = spec.held_in == BasePrecision::kNf4;
    for (const HfBlock& block : spec.blocks) bytes += nf4 ? nf4_bytes_of(block) : fp8_bytes_of(block);
    needs_map |= nf4;
  }
  return bytes + (needs_map ? map_bytes() : 0);
}

CodedWeights::CodedWeights(const ParamLayout& layout, Arena& arena) : blocks_(layout.size()) {
  for (int param = 0; param < layout.size(); ++param) {
    const ParamSpec& spec = layout.spec(param);
    if (!spec.is_coded()) continue;
    const bool nf4 = spec.held_in == BasePrecision::kNf4;
    if (nf4 && !map_) map_ = arena.allocate("map of absmax", {std::ssize(dynamic_map())}, DType::kF32);
    for (const HfBlock& block : spec.blocks)
      blocks_[param].push_back(nf4 ? Block(allocate_nf4(block, map_, arena)) : Block(allocate_fp8(block, arena)));
  }
}

void CodedWeights::fill_map(Ctx& ctx) {
  if (has_map_ || ctx.is_meta()) return;
  copy(ctx, host_tensor(dynamic_map().data(), {std::ssize(dynamic_map())}), map_);
  wait(ctx);
  has_map_ = true;
}

const Nf4Tensor& CodedWeights::nf4(Ctx& ctx, int param, size_t block) {
  fill_map(ctx);
  return std::get<Nf4Tensor>(blocks_[param][block]);
}

void CodedWeights::encode(Ctx& ctx, int param, size_t block, const Tensor& values) {
  if (const auto* fp8 = std::get_if<Fp8Weight>(&blocks_[param][block]))
    fp8_quantise(ctx, {.x = values, .to = *fp8});
  else
    nf4_quantise(ctx, {.x = values, .to = nf4(ctx, param, block)});
}

void CodedWeights::decode(Ctx& ctx, int param, const Tensor& to) const {
  std::vector<Nf4Dequantise> nf4;
  std::vector<Fp8Dequantise> fp8;
  const Tensor flat = to.view({to.elements()});
  int64_t offset = 0;
  const auto next = [&](int64_t elements) {
    const int64_t begin = std::exchange(offset, offset + elements);
    return flat.slice(begin, elements);
  };
  for (const Block& block : blocks_[param])
    if (const auto* from = std::get_if<Fp8Weight>(&block))
      fp8.push_back({.from = *from, .to = next(from->codes.elements())});
    else
      nf4.push_back({.from = std::get<Nf4Tensor>(block),
                     .to = next(std::get<Nf4Tensor>(block).elements),
                     .through = DType::kBF16});
  nf4_dequantise(ctx, nf4);
  fp8_dequantise(ctx, fp8);
}

}  // namespace mixtune
