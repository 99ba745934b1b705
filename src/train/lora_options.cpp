#include "train/lora_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "base/error.h"
#include "base/suggest.h"
#include "config/keys.h"
#include "model/params.h"
#include "state/adapter_names.h"
#include "train/instance_options.h"

namespace mixtune {

namespace {

constexpr std::string_view kTargets = "lora_target_modules", kAll = "all-linear";
constexpr std::array<std::string_view, 11> kModules = {"q_proj", "k_proj", "v_proj",       "o_proj",  "w1", "w2",
                                                       "w3",     "gate",   "embed_tokens", "lm_head", kAll};
constexpr std::string_view kWholeKey = "modules_to_save";
constexpr std::array<std::string_view, 7> kWhole = {
    "gate", "lm_head", "embed_tokens", "norm", "model.norm", "input_layernorm", "post_attention_layernorm"};
constexpr std::array<std::string_view, 9> kOwnKeys = {
    "adapter_name_or_path", "lora_r",  "lora_alpha",   "use_rslora",       "lora_init",
    "lora_target_modules",  kWholeKey, "lora_dropout", "loraplus_lr_ratio"};
// What other trainers call otherwise.
constexpr std::array<std::string_view, 5> kOtherNames = {"gate_proj", "up_proj", "down_proj", "gate_up_proj",
                                                         "experts"};

bool is_among(std::string_view name, const auto& names) {
  return std::ranges::find(names, name) != names.end();
}

void check_module(const Config& config, const std::string& name) {
  if (is_among(name, kModules)) return;
  const std::string where = config.where(kTargets), what = fmt::format("'{}' ", printable(name, 100));
  if (is_among(name, kOtherNames))
    throw UserError(where, what + "is not what Mixtral's experts call a projection", "write w1, w2, w3");
  const std::string near = nearest_name(name.substr(0, 100), kModules);
  throw UserError(where, what + "is no projection",
                  near.empty()
                      ? "name q_proj, k_proj, v_proj, o_proj, w1, w2 and w3, all-linear, gate, embed_tokens, or "
                        "lm_head"
                      : fmt::format("did you mean '{}'?", near));
}

void check_whole_name(const Config& config, const std::string& name) {
  if (is_among(name, kWhole)) return;
  const std::string near = nearest_name(name.substr(0, 100), kWhole);
  throw UserError(
      config.where(kWholeKey),
      fmt::format(
          "'{}' {}", printable(name, 100),
          is_among(name, kModules) ? "has pairs, and is not trained whole beside them" : "is not trained whole"),
      near.empty() ? fmt::format("name {}", fmt::join(kWhole, ", ")) : fmt::format("did you mean '{}'?", near));
}

void check_pair_or_whole(const Config& config) {
  for (const std::string& name : config.adapter.lora_target_modules)
    if (is_among(name, config.adapter.modules_to_save))
      throw UserError(config.where(kWholeKey), fmt::format("'{}' is in lora_target_modules too", name),
                      "leave it out of one of them");
}

void check_experts(const Config& config, const auto& has) {
  const int named = has("w1") + has("w2") + has("w3");
  if (named == 0 || named == 3) return;
  throw UserError(config.where(kTargets),
                  "names some of w1, w2 and w3: no server takes an adapter of experts without the others",
                  "name all three, or none");
}

void check_pissa(const Config& config, const Lora& lora) {
  if (!lora.pissa) return;
  const std::string where = config.where("lora_init");
  if (lora.base != BasePrecision::kAuto)
    throw UserError(where,
                    "pissa takes a pair off each weight, and what a few bits make of the rest is not what they make of "
                    "the weight: the adapter would not be what was trained",
                    "set adapter: lora and base_precision: auto, or lora_init: default");
  if (!config.adapter.adapter_name_or_path.empty())
    throw UserError(where, "pissa begins with the weights, and adapter_name_or_path with an adapter",
                    "remove one of them");
  if (lora.gate || lora.embedding || lora.head)
    throw UserError(where, "pissa is of the projections of attention and of experts alone",
                    "leave gate, embed_tokens, lm_head and all-linear out of lora_target_modules, or set lora_init: "
                    "default");
}

void check_singular_values(const Config& config, const Lora& lora, const MixtralConfig& shape) {
  if (!lora.pissa) return;
  int64_t fewest = shape.hidden_size;
  if (lora.q || lora.out) fewest = std::min(fewest, shape.query_size());
  if (lora.k || lora.v) fewest = std::min(fewest, shape.kv_size());
  if (lora.experts) fewest = std::min(fewest, shape.intermediate_size);
  if (lora.rank > fewest)
    throw UserError(config.where("lora_r"),
                    fmt::format("is {}, and pissa finds {} singular values of the smallest weight", lora.rank, fewest),
                    "lower lora_r, or set lora_init: default");
}

// A pair begins with B = 0 unless something else says what it begins as: A alone has no gradient then.
void check_frozen_factors(const Config& config, const Freeze& freeze, const std::vector<ParamSpec>& specs) {
  if (config.adapter.lora_init == LoraInit::kPissa || !config.adapter.adapter_name_or_path.empty()) return;
  const auto is_b = [](const ParamSpec& spec) {
    return spec.origin == ParamSpec::Origin::kInitialised &&
           parse_adapter_name(spec.blocks[0].name, "").factor == AdapterFactor::kB;
  };
  for (size_t i = 1; i < specs.size(); ++i)  // B comes after its A
    if (is_b(specs[i]) && !specs[i].trainable && specs[i - 1].trainable)
      throw UserError(freeze.where,
                      fmt::format("freezes {}, which begins as 0, and beside it {} learns nothing",
                                  specs[i].blocks[0].name, specs[i - 1].blocks[0].name),
                      "freeze the whole pair, or neither, or begin with lora_init: pissa or adapter_name_or_path");
}

void refuse_own_keys(const Config& config) {
  for (const std::string_view key : kOwnKeys)
    if (config.origins.contains(key) && is_changed(config, key))
      throw UserError(config.where(key), "means nothing without an adapter",
                      "set adapter: lora or qlora, or remove it");
}

}  // namespace

Lora lora_of(const Config& config) {
  const AdapterSettings& settings = config.adapter;
  if (settings.adapter == AdapterKind::kQlora && settings.base() != BasePrecision::kNf4)
    throw UserError(config.where("base_precision"), "is fp8, and adapter: qlora is LoRA beside nf4",
                    "set adapter: lora");
  if (!settings.is_set()) {
    refuse_own_keys(config);
    return {.base = settings.base()};
  }
  for (const std::string& name : settings.lora_target_modules) check_module(config, name);
  for (const std::string& name : settings.modules_to_save) check_whole_name(config, name);
  check_pair_or_whole(config);
  const auto named = [&](std::string_view name) {
    return is_among(name, settings.lora_target_modules);
  };
  const bool all = settings.lora_target_modules.empty() || named(kAll);
  const auto has = [&](std::string_view name) {
    return all || named(name);
  };
  check_experts(config, has);
  const auto rank = static_cast<double>(settings.lora_r);
  Lora lora = {.rank = settings.lora_r,
               .scale = settings.lora_alpha / (settings.use_rslora ? std::sqrt(rank) : rank),
               .b_lr_ratio = settings.loraplus_lr_ratio,
               .dropout = settings.lora_dropout,
               .pissa = settings.lora_init == LoraInit::kPissa,
               .q = has("q_proj"),
               .k = has("k_proj"),
               .v = has("v_proj"),
               .out = has("o_proj"),
               .experts = has("w1"),
               .gate = named("gate") || (named(kAll) && !is_among("gate", settings.modules_to_save)),
               .embedding = named("embed_tokens"),
               .head = named("lm_head"),
               .base = settings.base(),
               .whole = settings.modules_to_save};
  check_pissa(config, lora);
  return lora;
}

void check_trained(const Config& config, const MixtralConfig& shape) {
  const Lora lora = lora_of(config);
  check_singular_values(config, lora, shape);
  if ((lora.embedding || lora.head) && shape.tie_word_embeddings)
    throw UserError(config.where(kTargets),
                    "the model's embedding and head are one (tie_word_embeddings), and neither has a pair of its own",
                    "leave out embed_tokens and lm_head");
  if (!lora.is_set()) return;
  if (shape.tie_word_embeddings &&
      (lora.trains_whole("lm_head.weight") || lora.trains_whole("model.embed_tokens.weight")))
    throw UserError(config.where(kWholeKey),
                    "the model's embedding and head are one (tie_word_embeddings), and an adapter's are not",
                    "leave out lm_head and embed_tokens");
  const Freeze freeze = freeze_of(config);
  const std::vector<ParamSpec> specs = make_layout(shape, {0, shape.num_local_experts}, freeze, lora).specs;
  check_frozen_factors(config, freeze, specs);
  for (const ParamSpec& spec : specs)
    if (!spec.trainable && lora.trains_whole(spec.blocks[0].name))
      throw UserError(freeze.where, fmt::format("freezes {}, which modules_to_save trains", spec.blocks[0].name),
                      "leave it out of one of them");
}

}  // namespace mixtune
