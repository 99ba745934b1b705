#include "model/lora.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "base/random.h"
#include "model/fill_values.h"
#include "state/adapter_names.h"

namespace mixtune {

namespace {

// Fills what this rank owns of an A.
void fill_a(Ctx& ctx, uint64_t seed, const State& state, int param) {
  for (const auto& [block, first, values] : owned_blocks(state, param)) {
    const uint64_t key = random_key(seed, block.name);
    const double bound = 1 / std::sqrt(static_cast<double>(block.shape()[1]));
    if (is_embedding_factor(block.name))
      fill_values(ctx, block, first, values, [&](int64_t place) { return random_normal(key, place); });
    else
      fill_values(ctx, block, first, values,
                  [&](int64_t place) { return bound * (2 * random_uniform(key, place) - 1); });
  }
}

}  // namespace

std::vector<std::string> Lora::modules() const {
  std::vector<std::string> names;
  const auto add = [&](bool has, std::string_view name) {
    if (has) names.emplace_back(name);
  };
  add(q, "q_proj");
  add(k, "k_proj");
  add(v, "v_proj");
  add(out, "o_proj");
  for (const char* name : {"w1", "w2", "w3"}) add(experts, name);
  add(gate, "gate");
  add(embedding, "embed_tokens");
  add(head, "lm_head");
  return names;
}

std::string Lora::str() const {
  const std::string pairs = fmt::format("{} of rank {}, scaling {}", fmt::join(modules(), ", "), rank, scale);
  return whole.empty() ? pairs : fmt::format("{}; whole: {}", pairs, fmt::join(whole, ", "));
}

bool Lora::trains_whole(std::string_view tensor) const {
  const std::string module = module_of(tensor);
  return std::ranges::any_of(whole, [&](const std::string& entry) { return names_module(entry, module); });
}

std::string lora_a_name(const std::string& module) {
  return adapter_tensor_name(module, AdapterFactor::kA, AdapterNaming::kHub);
}
std::string lora_b_name(const std::string& module) {
  return adapter_tensor_name(module, AdapterFactor::kB, AdapterNaming::kHub);
}

std::vector<OwnedBlock> owned_blocks(const State& state, int param) {
  const Tensor all = state.primary(param), values = all.view({all.elements()});
  const ParamLayout::Piece owned =
      state.master(param) ? state.layout().owned(param) : ParamLayout::Piece{0, all.elements()};
  std::vector<OwnedBlock> blocks;
  for (const HfBlock& block : state.spec(param).blocks) {
    const int64_t begin = std::max(block.offset, owned.begin),
                  end = std::min(block.offset + block.elements(), owned.begin + owned.count);
    if (begin < end) blocks.push_back({block, begin - block.offset, values.slice(begin - owned.begin, end - begin)});
  }
  return blocks;
}

void initialise_adapters(Ctx& ctx, uint64_t seed, State& state) {
  for (int param = 0; param < state.size(); ++param) {
    if (state.spec(param).origin != ParamSpec::Origin::kInitialised) continue;
    if (state.spec(param).blocks.empty()) continue;
    if (parse_adapter_name(state.spec(param).blocks[0].name, "").factor == AdapterFactor::kA)
      fill_a(ctx, seed, state, param);
    else
      zero(ctx, state.primary(param));
    state.publish(ctx, param);
  }
  state.share_weights(ctx);
  wait(ctx);
}

}  // namespace mixtune
