// Helpers for the tests of this folder: a temporary folder, and a State whose tensors are named as a small Mixtral's.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "base/temp_folder.h"
#include "checkpoint/convert.h"
#include "state/state.h"

namespace mixtune {

inline constexpr StateTypes kBf16State{.weights = DType::kBF16}, kMasterState{.weights = DType::kBF16, .masters = true};

inline void put(const std::string& path, std::string_view content) {
  std::ofstream(path, std::ios::binary) << content;
}

inline std::string get(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::vector<std::string> entries(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

// A safetensors file with this header and `size` zero bytes of tensors.
inline std::string raw_safetensors(std::string_view header, size_t size) {
  const uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof(length));
  file += header;
  file.append(size, '\0');
  return file;
}

// Expects a UserError with all `fragments` in its one line.
template <class Function>
void expect_user_error(Function&& function, const std::vector<std::string>& fragments) {
  try {
    function();
    ADD_FAILURE() << "no error; expected one with: " << fragments.at(0);
  } catch (const UserError& error) {
    const std::string line = error.what();
    EXPECT_EQ(line.find('\n'), std::string::npos) << line;
    for (const std::string& fragment : fragments) EXPECT_NE(line.find(fragment), std::string::npos) << line;
  }
}

struct SmallModel {
  int64_t layers = 2, hidden = 8, ffn = 6, experts = 3, kv = 4, vocab = 10;
  bool tied = false;
  int64_t added = 0;  // the last rows of vocab, which the checkpoint lacks
};

inline void add_layer(std::vector<ParamSpec>& specs, const SmallModel& m, int64_t layer) {
  const std::string prefix = fmt::format("model.layers.{}.", layer), moe = prefix + "block_sparse_moe.";
  const auto attention = [&](const char* name) {
    return fmt::format("{}self_attn.{}_proj.weight", prefix, name);
  };
  const auto plain = [&](std::string name, Shape shape) {
    specs.push_back({name, shape, {{name, Box(shape)}}});
  };
  plain(prefix + "input_layernorm.weight", {m.hidden});
  const Shape q{m.hidden, m.hidden}, kv{m.kv, m.hidden};
  specs.push_back({prefix + "qkv",
                   {m.hidden + 2 * m.kv, m.hidden},
                   {{attention("q"), Box(q)},
                    {attention("k"), Box(kv), m.hidden * m.hidden},
                    {attention("v"), Box(kv), (m.hidden + m.kv) * m.hidden}}});
  plain(attention("o"), q);
  plain(prefix + "post_attention_layernorm.weight", {m.hidden});
  plain(moe + "gate.weight", {m.experts, m.hidden});
  ParamSpec gate_up{prefix + "gate_up", {m.experts, 2 * m.ffn, m.hidden}, {}};
  ParamSpec down{prefix + "down", {m.experts, m.hidden, m.ffn}, {}};
  const int64_t size = m.ffn * m.hidden;
  for (int64_t e = 0; e < m.experts; ++e) {
    const std::string expert = fmt::format("{}experts.{}.", moe, e);
    gate_up.blocks.push_back({expert + "w1.weight", Box({m.ffn, m.hidden}), 2 * e * size});
    gate_up.blocks.push_back({expert + "w3.weight", Box({m.ffn, m.hidden}), (2 * e + 1) * size});
    down.blocks.push_back({expert + "w2.weight", Box({m.hidden, m.ffn}), e * size});
  }
  specs.push_back(std::move(gate_up));
  specs.push_back(std::move(down));
}

inline std::vector<ParamSpec> small_specs(const SmallModel& m) {
  const Shape vocab{m.vocab, m.hidden};
  std::vector<ParamSpec> specs = {{"embedding", vocab, {{"model.embed_tokens.weight", Box(vocab), 0, m.added}}}};
  for (int64_t layer = 0; layer < m.layers; ++layer) add_layer(specs, m, layer);
  specs.push_back({"norm", {m.hidden}, {{"model.norm.weight", Box({m.hidden})}}});
  if (!m.tied) specs.push_back({"head", vocab, {{"lm_head.weight", Box(vocab), 0, m.added}}});
  return specs;
}

inline State small_state(const SmallModel& m = {}, DType dtype = DType::kF32) {
  return State(small_specs(m), {}, dtype, State::Purpose::kInference);
}

// Random fp32 weights, each as `rounded` makes it.
template <class F>
void fill_with(State& state, F rounded) {
  for (int param = 0; param < state.size(); ++param) {
    const Tensor weight = state.weight(param);
    const uint64_t key = random_key(7, state.spec(param).name);
    for (int64_t i = 0; i < weight.elements(); ++i)
      weight.as<float>()[i] = rounded(static_cast<float>(0.02 * random_normal(key, static_cast<uint64_t>(i))));
  }
}

// Values that `dtype` holds exactly, and most of which no narrower mantissa does. (initialise_weights, of the layer
// above, has no fp16.)
inline void fill(State& state, DType dtype = DType::kF32) {
  fill_with(state, [&](float x) {
    return dtype == DType::kF32 ? x : dtype == DType::kF16 ? to_float(to_f16(x)) : to_float(to_bf16(x));
  });
}

// Values that every type holds exactly.
inline void fill_for_all_types(State& state) {
  fill_with(state, [](float x) { return static_cast<float>(static_cast<int>(x * 1024)) / 1024; });
}

// "" if the weights of both are the same bits, else the name of the first parameter that differs.
inline std::string difference(const State& a, const State& b) {
  for (int param = 0; param < a.size(); ++param) {
    const Tensor x = a.weight(param), y = b.weight(param);
    if (!(x.shape == y.shape) || std::memcmp(x.data, y.data, x.bytes()) != 0) return a.spec(param).name;
  }
  return "";
}

}  // namespace mixtune
