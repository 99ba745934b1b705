#include "model/params.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

#include "base/error.h"
#include "base/random.h"
#include "base/random_normals.h"
#include "kernels/cast.h"
#include "model/fill_values.h"

namespace mixtune {

namespace {

class LayoutBuilder {
 public:
  LayoutBuilder(bool trains_stored, BasePrecision base) : trains_stored_(trains_stored), base_(base) {}

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
    Box box;

    Part(std::string tensor, const Shape& whole) : Part(std::move(tensor), Box(whole)) {}
    Part(std::string tensor, const Box& part) : name(std::move(tensor)), box(part) {}
  };
  // Adds a parameter of the given boxes of Hugging Face tensors, one behind the other.
  int add(WeightGroup group, const std::string& name, Shape shape, const std::vector<Part>& parts) {
    ParamSpec spec{.name = name,
                   .shape = shape,
                   .blocks = {},
                   .trainable = origin_ == ParamSpec::Origin::kInitialised || trains_stored_,
                   .group = group,
                   .place = place_,
                   .origin = origin_};
    // Of what is stored, matrices of these two groups.
    if (origin_ == ParamSpec::Origin::kStored && shape.rank() > 1 &&
        (group == WeightGroup::kAttention || group == WeightGroup::kExperts))
      spec.held_in = base_;
    if (spec.is_coded()) spec.trainable = false;
    int64_t offset = 0;
    for (const Part& part : parts) {
      spec.blocks.push_back({.name = part.name, .box = part.box, .offset = offset});
      offset += part.box.elements();
    }
    specs_.push_back(std::move(spec));
    return static_cast<int>(specs_.size()) - 1;
  }

  // Set the place, and the origin, of every parameter that is added from now on.
  void set_place(const Place& place) { place_ = place; }
  void set_origin(ParamSpec::Origin origin) { origin_ = origin; }
  // Gives a parameter a multiple of its group's learning rate.
  void set_lr_ratio(int param, double ratio) { specs_[param].lr_ratio = ratio; }
  // Marks a parameter as one of experts: other ranks may hold `elsewhere`.
  void spread_over_ranks(int param, const std::vector<Part>& elsewhere) {
    specs_[param].of_experts = true;
    for (const Part& part : elsewhere) specs_[param].elsewhere.push_back({.name = part.name, .box = part.box});
  }
  // Freezes a parameter, and holds it in fp32 whatever the weights are.
  void keep_exact(int param) {
    specs_[param].trainable = false;
    specs_[param].dtype = DType::kF32;
  }

  std::vector<ParamSpec> take() { return std::move(specs_); }

 private:
  const bool trains_stored_;
  const BasePrecision base_;
  std::vector<ParamSpec> specs_;
  Place place_;
  ParamSpec::Origin origin_ = ParamSpec::Origin::kStored;
};

// A layer's experts, all of them and those that are here.
struct ExpertNames {
  std::string layer;  // "model.layers.3.block_sparse_moe."
  int64_t all;
  RankGrid::Experts here;

  bool is_here(int64_t e) const { return e >= here.first && e < here.first + here.count; }
  std::string expert(int64_t e) const { return fmt::format("{}experts.{}.", layer, e); }
};

// A projection of a weight: some of its rows.
struct Module {
  std::string name;  // the hub's, without ".weight"
  AdaptedRows rows;
  bool adapted;
};

// Which pairs are added: those that are trained, or what they began as, where W is held without that (Lora::pissa).
// Both are parts of the tensors that are saved.
struct NewPairs {
  const Lora& lora;
  bool initial = false;

  Box part(const Shape& saved, int dim) const { return Box(saved).cut(dim, initial ? lora.rank : 0, lora.rank); }
  std::string names(const std::string& weight, const char* factor) const {
    return fmt::format("{}.{}{}", weight, initial ? "initial_" : "", factor);
  }
};

// The parts of the A, and of the B, of the adapted ones.
struct PairParts {
  std::vector<LayoutBuilder::Part> a, b;

  void add(const Module& module, const NewPairs& pairs, int64_t in) {
    a.push_back({lora_a_name(module.name), pairs.part({pairs.lora.saved_rank(), in}, 0)});
    b.push_back({lora_b_name(module.name), pairs.part({module.rows.count, pairs.lora.saved_rank()}, 1)});
  }
};

AdaptedModules adapted_among(const std::vector<Module>& modules) {
  AdaptedModules adapted;
  for (const Module& module : modules)
    if (module.adapted) adapted.add(module.rows);
  return adapted;
}

void set_kind(LayoutBuilder& builder, const NewPairs& pairs, const AdapterParams& params) {
  builder.set_lr_ratio(params.b, pairs.lora.b_lr_ratio);
  if (!pairs.initial) return;
  builder.keep_exact(params.a);
  builder.keep_exact(params.b);
}

// The pair of a weight [.., in], not of experts.
AdapterParams add_adapter(LayoutBuilder& builder, const NewPairs& pairs, WeightGroup group, const std::string& name,
                          int64_t in, const std::vector<Module>& modules) {
  const AdaptedModules adapted = adapted_among(modules);
  const int64_t rank = pairs.lora.rank;
  if (!pairs.lora.is_set() || adapted.size == 0) return {};
  PairParts parts;
  for (const Module& module : modules)
    if (module.adapted) parts.add(module, pairs, in);
  const AdapterParams params = {
      .a = builder.add(group, pairs.names(name, "lora_A"), {adapted.size * rank, in}, parts.a),
      .b = builder.add(group, pairs.names(name, "lora_B"), {adapted.row_count(), rank}, parts.b),
      .modules = adapted,
      .rank = rank};
  set_kind(builder, pairs, params);
  return params;
}

// The pairs of a weight [experts here, .., in]. modules: those of one expert, after the expert's name.
AdapterParams add_expert_adapter(LayoutBuilder& builder, const NewPairs& pairs, const ExpertNames& names,
                                 const std::string& name, int64_t in, const std::vector<Module>& modules) {
  const AdaptedModules adapted = adapted_among(modules);
  const int64_t count = names.here.count, rank = pairs.lora.rank;
  PairParts here, elsewhere;
  for (int64_t e = 0; e < names.all; ++e)
    for (const Module& module : modules)
      (names.is_here(e) ? here : elsewhere).add({names.expert(e) + module.name, module.rows, true}, pairs, in);
  const AdapterParams params = {
      .a = builder.add(WeightGroup::kExperts, pairs.names(name, "lora_A"), {count, adapted.size * rank, in}, here.a),
      .b = builder.add(WeightGroup::kExperts, pairs.names(name, "lora_B"), {count, adapted.row_count(), rank}, here.b),
      .modules = adapted,
      .rank = rank};
  set_kind(builder, pairs, params);
  builder.spread_over_ranks(params.a, elsewhere.a);
  builder.spread_over_ranks(params.b, elsewhere.b);
  return params;
}

// The pair of a table of the vocabulary; none where embedding and head share one.
AdapterParams add_table_adapter(LayoutBuilder& builder, const Lora& lora, WeightGroup group, const std::string& module,
                                const MixtralConfig& config, bool adapted) {
  return add_adapter(builder, NewPairs{lora}, group, module, config.hidden_size,
                     {{module, {0, config.vocab_size}, adapted && !config.tie_word_embeddings}});
}

void add_dense_adapters(LayoutBuilder& builder, const MixtralConfig& config, const NewPairs& pairs,
                        const std::string& attention, const std::string& moe, LayerParams& p) {
  const int64_t h = config.hidden_size, q = config.query_size(), kv = config.kv_size();
  const Lora& lora = pairs.lora;
  p.qkv_adapter = add_adapter(builder, pairs, WeightGroup::kAttention, attention + "qkv_proj", h,
                              {{attention + "q_proj", {0, q}, lora.q},
                               {attention + "k_proj", {q, kv}, lora.k},
                               {attention + "v_proj", {q + kv, kv}, lora.v}});
  p.out_adapter = add_adapter(builder, pairs, WeightGroup::kAttention, attention + "o_proj", q,
                              {{attention + "o_proj", {0, h}, lora.out}});
  p.router_adapter = add_adapter(builder, pairs, WeightGroup::kRouter, moe + "gate", h,
                                 {{moe + "gate", {0, config.num_local_experts}, lora.gate}});
}

void add_expert_adapters(LayoutBuilder& builder, const MixtralConfig& config, const NewPairs& pairs,
                         const ExpertNames& names, LayerParams& p) {
  if (!pairs.lora.is_set() || !pairs.lora.experts) return;
  const int64_t h = config.hidden_size, f = config.intermediate_size;
  p.gate_up_adapter = add_expert_adapter(builder, pairs, names, names.layer + "experts.gate_up", h,
                                         {{"w1", {0, f}, true}, {"w3", {f, f}, true}});
  p.down_adapter = add_expert_adapter(builder, pairs, names, names.layer + "experts.down", f, {{"w2", {0, h}, true}});
}

// Calls `add(pairs, p)` for the pairs that are trained, and then for what they began as, which no op reads.
template <class Add>
void add_pairs(LayoutBuilder& builder, const Lora& lora, LayerParams& p, Add&& add) {
  builder.set_origin(ParamSpec::Origin::kInitialised);
  add(NewPairs{lora}, p);
  LayerParams unread;
  if (lora.pissa) add(NewPairs{lora, true}, unread);
  builder.set_origin(ParamSpec::Origin::kStored);
}

LayerParams add_layer(LayoutBuilder& builder, const MixtralConfig& config, RankGrid::Experts experts, const Lora& lora,
                      int64_t layer) {
  const int64_t h = config.hidden_size, f = config.intermediate_size;
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  const std::string attention = prefix + "self_attn.", moe = prefix + "block_sparse_moe.";
  const ExpertNames names = {moe, config.num_local_experts, experts};
  std::vector<LayoutBuilder::Part> gate_up, down, gate_up_elsewhere, down_elsewhere;
  for (int64_t e = 0; e < names.all; ++e) {
    auto& gate_up_parts = names.is_here(e) ? gate_up : gate_up_elsewhere;
    gate_up_parts.push_back({names.expert(e) + "w1.weight", {f, h}});
    gate_up_parts.push_back({names.expert(e) + "w3.weight", {f, h}});
    (names.is_here(e) ? down : down_elsewhere).push_back({names.expert(e) + "w2.weight", {h, f}});
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
  add_pairs(builder, lora, p, [&](const NewPairs& pairs, LayerParams& to) {
    add_dense_adapters(builder, config, pairs, attention, moe, to);
  });
  builder.set_place({.layer = layer, .part = Place::kExperts});
  p.gate_up = builder.add(WeightGroup::kExperts, moe + "experts.gate_up", {experts.count, 2 * f, h}, gate_up);
  p.down = builder.add(WeightGroup::kExperts, moe + "experts.down", {experts.count, h, f}, down);
  builder.spread_over_ranks(p.gate_up, gate_up_elsewhere);
  builder.spread_over_ranks(p.down, down_elsewhere);
  add_pairs(builder, lora, p,
            [&](const NewPairs& pairs, LayerParams& to) { add_expert_adapters(builder, config, pairs, names, to); });
  return p;
}

double round_to(DType dtype, double value) {
  if (dtype == DType::kF64) return value;
  const auto narrow = static_cast<float>(value);
  return dtype == DType::kBF16 ? to_float(to_bf16(narrow)) : narrow;
}

// The values of a Hugging Face tensor.
class RandomValues {
 public:
  RandomValues(const MixtralConfig& config, const RandomWeights& random, const std::string& name, const Shape& shape)
      : key_(random_key(random.seed, name)),
        is_norm_(shape.rank() == 1),
        deviation_(is_norm_ ? random.norm_deviation : config.initializer_range),
        rounded_to_(random.rounded_to) {}

  double operator()(int64_t place) const {
    const double normal = deviation_ * random_normal(key_, place);
    return round_to(rounded_to_, is_norm_ ? 1 + normal : normal);
  }
  // Those from place `first` on, each rounded once.
  void fill(int64_t first, std::span<float> values) const {
    if (!is_norm_ && rounded_to_ == DType::kF64) return random_normals(key_, first, deviation_, values);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>((*this)(first + static_cast<int64_t>(i)));
  }

 private:
  const uint64_t key_;
  const bool is_norm_;
  const double deviation_;
  const DType rounded_to_;
};

// part [n]: the elements of the weight that are the block.
void fill(Ctx& ctx, const MixtralConfig& config, const RandomWeights& random, const HfBlock& block,
          const Tensor& part) {
  fill_values(ctx, block, 0, part, RandomValues(config, random, block.name, block.shape()));
}

void encode_random(Ctx& ctx, const MixtralConfig& config, const RandomWeights& random, State& state, int param) {
  const std::vector<HfBlock>& blocks = state.spec(param).blocks;
  for (size_t b = 0; b < blocks.size(); ++b) {
    const Frame frame(ctx);
    const Tensor values = ctx.stack.push("random weights", {blocks[b].elements()}, state.types().weights);
    fill(ctx, config, random, blocks[b], values);
    state.encode(ctx, param, b, values);
  }
}

}  // namespace

ModelLayout make_layout(const MixtralConfig& config, RankGrid::Experts experts, const Freeze& freeze,
                        const Lora& lora) {
  LayoutBuilder builder(!lora.is_set(), lora.base);
  ModelParams params;
  params.adapter_scale = lora.scale;
  params.adapter_dropout = lora.dropout;
  const Shape table = {config.vocab_size, config.hidden_size};
  builder.set_place({.layer = -1});
  params.embedding =
      builder.add_table(WeightGroup::kEmbeddings, "model.embed_tokens.weight", table, config.added_tokens);
  builder.set_origin(ParamSpec::Origin::kInitialised);
  params.embedding_adapter =
      add_table_adapter(builder, lora, WeightGroup::kEmbeddings, "model.embed_tokens", config, lora.embedding);
  // LoRA+ is of projections.
  if (params.embedding_adapter.is_set()) builder.set_lr_ratio(params.embedding_adapter.b, 1);
  builder.set_origin(ParamSpec::Origin::kStored);
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    params.layers.push_back(add_layer(builder, config, experts, lora, layer));
  builder.set_place({.layer = config.num_hidden_layers});
  params.final_norm = builder.add(WeightGroup::kNorms, "model.norm.weight", {config.hidden_size});
  params.lm_head = config.tie_word_embeddings
                       ? params.embedding
                       : builder.add_table(WeightGroup::kHead, "lm_head.weight", table, config.added_tokens);
  builder.set_origin(ParamSpec::Origin::kInitialised);
  params.head_adapter = add_table_adapter(builder, lora, WeightGroup::kHead, "lm_head", config, lora.head);
  std::vector<ParamSpec> specs = builder.take();
  for (ParamSpec& spec : specs)
    if (lora.is_set() && spec.blocks.size() == 1 && lora.trains_whole(spec.blocks[0].name)) spec.trainable = true;
  apply(freeze, config, specs);
  return {std::move(specs), std::move(params)};
}

ModelLayout make_layout(const MixtralConfig& config) {
  return make_layout(config, {0, config.num_local_experts});
}

State meta_state(const MixtralConfig& config) {
  return {make_layout(config).specs, {DeviceType::kMeta}, DType::kF32, State::Purpose::kInference};
}

void fill_random(const MixtralConfig& config, const RandomWeights& random, const std::string& tensor,
                 const Shape& shape, int64_t first, const Tensor& to) {
  constexpr int64_t kAtOnce = 4096;
  const RandomValues values(config, random, tensor, shape);
  const int64_t n = to.elements();
#pragma omp parallel for
  for (int64_t begin = 0; begin < n; begin += kAtOnce) {
    const auto count = static_cast<size_t>(std::min(kAtOnce, n - begin));
    if (to.dtype == DType::kF32) {
      values.fill(first + begin, {to.as<float>() + begin, count});
      continue;
    }
    std::array<float, kAtOnce> wide;
    values.fill(first + begin, std::span(wide).first(count));
    for (size_t i = 0; i < count; ++i) to.as<BF16>()[begin + static_cast<int64_t>(i)] = to_bf16(wide[i]);
  }
}

void initialise_weights(Ctx& ctx, const MixtralConfig& config, const RandomWeights& random, State& state) {
  for (int p = 0; p < state.size(); ++p) {
    if (state.is_coded(p)) {
      encode_random(ctx, config, random, state, p);
      continue;
    }
    const Tensor weight = state.weight(p), flat = weight.view({weight.elements()});
    for (const HfBlock& block : state.spec(p).blocks)
      fill(ctx, config, random, block, flat.slice(block.offset, block.elements()));
    const ParamLayout::Piece owned = state.layout().owned(p);
    if (const Tensor master = state.master(p); master && owned.count > 0)
      cast(ctx, flat.slice(owned.begin, owned.count), master.view({owned.count}));
  }
  state.weights_changed();
  wait(ctx);
}

}  // namespace mixtune
