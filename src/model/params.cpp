#include "model/params.h"

#include <fmt/format.h>

#include <algorithm>
#include <type_traits>

#include "base/random.h"
#include "kernels/cast.h"

namespace mixtune {

namespace {

class LayoutBuilder {
 public:
  // Adds a parameter that is one whole Hugging Face tensor.
  int add(WeightGroup group, const std::string& name, Shape shape) { return add(group, name, shape, {{name, shape}}); }

  // Adds a table of the vocabulary, whose last `added` rows the checkpoint lacks.
  int add_table(WeightGroup group, const std::string& name, Shape shape, int64_t added) {
    const int param = add(group, name, shape);
    specs_[param].blocks[0].added = added;
    return param;
  }

  struct Part {
    std::string name;
    Shape shape;
  };
  // Adds a parameter of the given whole Hugging Face tensors, one behind the other.
  int add(WeightGroup group, const std::string& name, Shape shape, const std::vector<Part>& parts) {
    ParamSpec spec{.name = name, .shape = shape, .blocks = {}, .group = group, .place = place_};
    int64_t offset = 0;
    for (const Part& part : parts) {
      spec.blocks.push_back({.name = part.name, .box = Box(part.shape), .offset = offset});
      offset += part.shape.elements();
    }
    specs_.push_back(std::move(spec));
    return static_cast<int>(specs_.size()) - 1;
  }

  // Sets the place of every parameter that is added from now on.
  void set_place(const Place& place) { place_ = place; }
  // Marks a parameter as one of experts: other ranks may hold `elsewhere`.
  void spread_over_ranks(int param, const std::vector<Part>& elsewhere) {
    specs_[param].of_experts = true;
    for (const Part& part : elsewhere) specs_[param].elsewhere.push_back({.name = part.name, .box = Box(part.shape)});
  }

  std::vector<ParamSpec> take() { return std::move(specs_); }

 private:
  std::vector<ParamSpec> specs_;
  Place place_;
};

LayerParams add_layer(LayoutBuilder& builder, const MixtralConfig& config, RankGrid::Experts experts, int64_t layer) {
  const int64_t h = config.hidden_size, f = config.intermediate_size;
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  const std::string attention = prefix + "self_attn.", moe = prefix + "block_sparse_moe.";
  std::vector<LayoutBuilder::Part> gate_up, down, gate_up_elsewhere, down_elsewhere;
  for (int64_t e = 0; e < config.num_local_experts; ++e) {
    const std::string expert = fmt::format("{}experts.{}.", moe, e);
    const bool here = e >= experts.first && e < experts.first + experts.count;
    auto& gate_up_parts = here ? gate_up : gate_up_elsewhere;
    gate_up_parts.push_back({expert + "w1.weight", {f, h}});
    gate_up_parts.push_back({expert + "w3.weight", {f, h}});
    (here ? down : down_elsewhere).push_back({expert + "w2.weight", {h, f}});
  }
  LayerParams p;
  builder.set_place({.layer = layer});
  p.input_norm = builder.add(WeightGroup::kNorms, prefix + "input_layernorm.weight", {h});
  p.qkv = builder.add(WeightGroup::kAttention, attention + "qkv_proj", {config.qkv_size(), h},
                      {{attention + "q_proj.weight", {config.query_size(), h}},
                       {attention + "k_proj.weight", {config.kv_size(), h}},
                       {attention + "v_proj.weight", {config.kv_size(), h}}});
  p.attention_out = builder.add(WeightGroup::kAttention, attention + "o_proj.weight", {h, config.query_size()});
  p.post_norm = builder.add(WeightGroup::kNorms, prefix + "post_attention_layernorm.weight", {h});
  p.router = builder.add(WeightGroup::kRouter, moe + "gate.weight", {config.num_local_experts, h});
  builder.set_place({.layer = layer, .part = Place::kExperts});
  p.gate_up = builder.add(WeightGroup::kExperts, moe + "experts.gate_up", {experts.count, 2 * f, h}, gate_up);
  p.down = builder.add(WeightGroup::kExperts, moe + "experts.down", {experts.count, h, f}, down);
  builder.spread_over_ranks(p.gate_up, gate_up_elsewhere);
  builder.spread_over_ranks(p.down, down_elsewhere);
  return p;
}

double round_to(DType dtype, double value) {
  if (dtype == DType::kF64) return value;
  const auto narrow = static_cast<float>(value);
  return dtype == DType::kBF16 ? to_float(to_bf16(narrow)) : narrow;
}

// part [n]: the elements of the weight that are the block.
template <class S>
void fill(Ctx& ctx, const MixtralConfig& config, const RandomWeights& random, const HfBlock& block,
          const Tensor& part) {
  constexpr int64_t kAtOnce = 1 << 20;
  const uint64_t key = random_key(random.seed, block.name);
  const bool is_norm = block.shape().rank() == 1;
  const double deviation = is_norm ? random.norm_deviation : config.initializer_range;
  std::vector<S> values(static_cast<size_t>(std::min(kAtOnce, part.rows())));
  for (int64_t begin = 0; begin < part.rows(); begin += kAtOnce) {
    const int64_t count = std::min(kAtOnce, part.rows() - begin);
#pragma omp parallel for
    for (int64_t i = 0; i < count; ++i) {
      const double normal = deviation * random_normal(key, block.box.place(begin + i));
      const double value = round_to(random.rounded_to, is_norm ? 1 + normal : normal);
      if constexpr (std::is_same_v<S, BF16>)
        values[i] = to_bf16(static_cast<float>(value));
      else
        values[i] = static_cast<S>(value);
    }
    copy(ctx, host_tensor(values.data(), {count}), part.slice(begin, count));
    wait(ctx);
  }
}

}  // namespace

ModelLayout make_layout(const MixtralConfig& config, RankGrid::Experts experts, const Freeze& freeze) {
  LayoutBuilder builder;
  ModelParams params;
  const Shape table = {config.vocab_size, config.hidden_size};
  builder.set_place({.layer = -1});
  params.embedding =
      builder.add_table(WeightGroup::kEmbeddings, "model.embed_tokens.weight", table, config.added_tokens);
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    params.layers.push_back(add_layer(builder, config, experts, layer));
  builder.set_place({.layer = config.num_hidden_layers});
  params.final_norm = builder.add(WeightGroup::kNorms, "model.norm.weight", {config.hidden_size});
  params.lm_head = config.tie_word_embeddings
                       ? params.embedding
                       : builder.add_table(WeightGroup::kHead, "lm_head.weight", table, config.added_tokens);
  std::vector<ParamSpec> specs = builder.take();
  apply(freeze, config, specs);
  return {std::move(specs), std::move(params)};
}

ModelLayout make_layout(const MixtralConfig& config) {
  return make_layout(config, {0, config.num_local_experts});
}

void initialise_weights(Ctx& ctx, const MixtralConfig& config, const RandomWeights& random, State& state) {
  for (int p = 0; p < state.size(); ++p) {
    const Tensor weight = state.weight(p), flat = weight.view({weight.elements()});
    for (const HfBlock& block : state.spec(p).blocks) {
      const auto fill_block = weight.dtype == DType::kF64    ? fill<double>
                              : weight.dtype == DType::kBF16 ? fill<BF16>
                                                             : fill<float>;
      fill_block(ctx, config, random, block, flat.slice(block.offset, block.elements()));
    }
    const ParamLayout::Piece owned = state.layout().owned(p);
    if (const Tensor master = state.master(p); master && owned.count > 0)
      cast(ctx, flat.slice(owned.begin, owned.count), master.view({owned.count}));
  }
  state.weights_changed();
  wait(ctx);
}

}  // namespace mixtune
