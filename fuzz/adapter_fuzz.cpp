// Any text as an adapter's configuration and, after a NUL, any bytes as its weights: refused with a UserError, or pairs
// whose factors lie in their tensors.
#include <array>
#include <cstdlib>

#include "base/error.h"
#include "checkpoint/adapter_pairs.h"

using namespace mixtune;

namespace {

BaseShapes base_of_fuzzed() {
  BaseShapes shapes;
  for (int layer = 0; layer < 2; ++layer) {
    const std::string head = "model.layers." + std::to_string(layer) + ".", moe = head + "block_sparse_moe.";
    for (const char* name : {"q", "o"}) shapes[head + "self_attn." + name + "_proj.weight"] = {32, 32};
    for (const char* name : {"k", "v"}) shapes[head + "self_attn." + name + "_proj.weight"] = {16, 32};
    shapes[moe + "gate.weight"] = {4, 32};
    for (const char* norm : {"input", "post_attention"}) shapes[head + norm + "_layernorm.weight"] = {32};
    for (int e = 0; e < 4; ++e) {
      const std::string expert = moe + "experts." + std::to_string(e);
      shapes[expert + ".w1.weight"] = shapes[expert + ".w3.weight"] = {16, 32};
      shapes[expert + ".w2.weight"] = {32, 16};
    }
  }
  for (const char* table : {"lm_head.weight", "model.embed_tokens.weight"}) shapes[table] = {96, 32};
  return shapes;
}

// The last element of a factor of so many rows and columns.
void check_place(const FactorPlace& place, int64_t rows, int64_t columns) {
  const int64_t last = place.first + (rows - 1) * place.row_step + (columns - 1) * place.column_step;
  if (place.first < 0 || place.row_step < 0 || place.column_step < 0) abort();
  if (last >= place.stored().shape.elements()) abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const BaseShapes base = base_of_fuzzed();
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(all.find('\0'), all.size());
  try {
    const AdapterConfig config = parse_adapter_config(all.substr(0, end), "fuzz");
    if (config.rank_of("model.layers.0.self_attn.q_proj") < 1) abort();
    const std::string_view file = all.substr(std::min(end + 1, all.size()));
    const StoredTensors tensors = parse_safetensors(file, file.size(), "fuzz");
    const AdapterPairs all_pairs = adapter_pairs(tensors, config, base, "fuzz");
    for (const AdapterWhole& whole : all_pairs.whole)
      if (!(base.at(whole.module + ".weight") == whole.tensor->second.shape)) abort();
    for (const AdapterPair& pair : all_pairs.pairs) {
      if (!base.contains(pair.weight()) || pair.rank < 1) abort();
      check_place(pair.a, pair.rank, pair.in);
      check_place(pair.b, pair.out, pair.rank);
    }
  } catch (const UserError&) {
  }
  return 0;
}
