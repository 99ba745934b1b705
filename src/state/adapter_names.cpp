#include "state/adapter_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "base/error.h"

namespace mixtune {

namespace {

constexpr std::string_view kAdapterPrefix = "base_model.model.";

// An expert's matrix by the hub's name and by that of most other models.
struct ExpertMatrix {
  std::string_view hub, other;
};
constexpr auto kMatrices = std::to_array<ExpertMatrix>({{"w1", "gate_proj"}, {"w2", "down_proj"}, {"w3", "up_proj"}});
// What may be trained whole, in a layer and beside the layers.
constexpr auto kWholeInLayers = std::to_array<std::string_view>(
    {"input_layernorm", "post_attention_layernorm", "mlp.gate", "block_sparse_moe.gate"});
constexpr auto kWholeOutside = std::to_array<std::string_view>({"embed_tokens", "norm"});
constexpr std::string_view kHead = "lm_head", kEmbedding = "model.embed_tokens", kHubGate = "block_sparse_moe.gate",
                           kGate = "mlp.gate";
constexpr auto kAttention = std::to_array<std::string_view>({"q_proj", "k_proj", "v_proj", "o_proj"});

// Parts of names that say what mixtune does not read.
struct ForeignName {
  std::string_view part, what;
};
constexpr auto kForeignNames = std::to_array<ForeignName>({
    {"lora_magnitude_vector", "is of a DoRA adapter"},
    {"lora_B.bias", "is a bias (lora_bias)"},
    {"lora_bias", "is a bias (lora_bias)"},
    {"lora_E", "is of an AdaLoRA adapter"},
    {"ranknum", "is of an AdaLoRA adapter"},
    {"modules_to_save", "is a whole weight (modules_to_save)"},
    {"token_adapter", "has rows of the embedding (trainable_token_indices)"},
    {"embed_tokens", "is of the embedding, and neither its lora_embedding_A nor its lora_embedding_B"},
});

bool take(std::string_view& text, std::string_view start) {
  if (!text.starts_with(start)) return false;
  text.remove_prefix(start.size());
  return true;
}

bool take_end(std::string_view& text, std::string_view end) {
  if (!text.ends_with(end)) return false;
  text.remove_suffix(end.size());
  return true;
}

// A number as it is written in names, and the dot that follows it.
std::optional<int64_t> take_number(std::string_view& text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const auto digits = static_cast<size_t>(end - text.data());
  if (error != std::errc() || number < 0 || std::to_string(number) != text.substr(0, digits)) return {};
  text.remove_prefix(digits);
  return take(text, ".") ? std::optional(number) : std::nullopt;
}

// `rest` follows "layers.N.block_sparse_moe." or "layers.N.mlp.".
std::optional<std::pair<AdapterTensorKind, std::string>> moe_module(std::string_view rest) {
  if (rest == "gate") return {{AdapterTensorKind::kModule, "gate"}};
  if (rest == "experts.base_layer") return {{AdapterTensorKind::kPackedInner, "experts"}};
  if (rest == "experts") return {{AdapterTensorKind::kPackedOuter, "experts"}};
  if (!take(rest, "experts.")) return {};
  const auto expert = take_number(rest);
  const auto matrix =
      std::ranges::find_if(kMatrices, [&](const ExpertMatrix& m) { return rest == m.hub || rest == m.other; });
  if (!expert || matrix == kMatrices.end()) return {};
  return {{AdapterTensorKind::kModule, fmt::format("experts.{}.{}", *expert, matrix->hub)}};
}

// Sets kind, module and peft from what stands between the prefix and "lora_A".
bool read_module(std::string_view text, AdapterTensorName& name) {
  name.peft = text;
  if (text == kHead) {
    name.kind = AdapterTensorKind::kModule;
    name.module = text;
    return true;
  }
  take(text, "model.");
  const std::string_view whole = text;
  if (!take(text, "layers.") || !take_number(text)) return false;
  const std::string head = fmt::format("model.{}", whole.substr(0, whole.size() - text.size()));
  if (take(text, "self_attn.")) {
    name.kind = AdapterTensorKind::kModule;
    name.module = fmt::format("{}self_attn.{}", head, text);
    return std::ranges::find(kAttention, text) != kAttention.end();
  }
  const bool is_new = take(text, "mlp.");
  if (!is_new && !take(text, "block_sparse_moe.")) return false;
  const auto found = moe_module(text);
  if (!found) return false;
  name.kind = found->first;
  name.module = fmt::format("{}block_sparse_moe.{}", head, found->second);
  if (is_new && text == "gate") name.peft += ".weight";  // a parameter there, not a module
  if (name.kind == AdapterTensorKind::kPackedInner)
    name.peft.resize(name.peft.size() - std::string_view(".base_layer").size());
  return true;
}

// The hub's name of a module that was trained whole, or "".
std::string whole_module(std::string_view text) {
  if (text == kHead) return std::string(kHead);
  take(text, "model.");
  const std::string_view all = text;
  if (std::ranges::find(kWholeOutside, text) != kWholeOutside.end()) return fmt::format("model.{}", text);
  if (!take(text, "layers.") || !take_number(text)) return "";
  if (std::ranges::find(kWholeInLayers, text) == kWholeInLayers.end()) return "";
  return fmt::format("model.{}{}", all.substr(0, all.size() - text.size()), text == kGate ? kHubGate : text);
}

// Parameters of the embedding, not modules as other factors are.
bool read_embedding(std::string_view text, AdapterTensorName& name) {
  take_end(text, ".default");
  const bool is_b = take_end(text, ".lora_embedding_A");
  if (!is_b && !take_end(text, ".lora_embedding_B")) return false;
  const std::string peft(text);
  take(text, "model.");
  if (text != "embed_tokens") return false;
  name = {.kind = AdapterTensorKind::kModule,
          .factor = is_b ? AdapterFactor::kB : AdapterFactor::kA,
          .module = std::string(kEmbedding),
          .peft = peft};
  return true;
}

bool read_name(std::string_view text, AdapterTensorName& name) {
  if (!take(text, kAdapterPrefix)) return false;
  take(text, kAdapterPrefix);
  if (read_embedding(text, name)) return true;
  if (!take_end(text, ".weight")) return false;
  std::string_view copied = text;
  const bool is_copy = take_end(copied, ".base_layer") && (copied == kHead || whole_module(copied) == kEmbedding);
  name.module = whole_module(is_copy ? copied : text);
  if (!name.module.empty()) {
    name.kind = AdapterTensorKind::kModule;
    name.factor = is_copy ? AdapterFactor::kBase : AdapterFactor::kWhole;
    name.peft = text;
    return true;
  }
  take_end(text, ".default");
  const bool is_a = text.ends_with(".lora_A");
  if (!take_end(text, is_a ? ".lora_A" : ".lora_B")) return false;
  name.factor = is_a ? AdapterFactor::kA : AdapterFactor::kB;
  return read_module(text, name);
}

}  // namespace

AdapterTensorName parse_adapter_name(std::string_view stored, const std::string& where) {
  AdapterTensorName name{};
  if (read_name(stored, name)) return name;
  const auto foreign =
      std::ranges::find_if(kForeignNames, [&](const ForeignName& f) { return stored.find(f.part) != stored.npos; });
  throw UserError(
      where,
      fmt::format("tensor '{}' {}", printable(stored, 200),
                  foreign == kForeignNames.end() ? "is of no module that mixtune knows adapters of" : foreign->what),
      "mixtune reads plain LoRA of Mixtral's attention, experts, router, embedding and head, and whole norms, gates, "
      "embeddings and heads: merge this one with PEFT");
}

std::string module_of(std::string_view tensor) {
  return take_end(tensor, ".weight") ? std::string(tensor) : "";
}

bool names_module(std::string_view entry, std::string_view module) {
  if (module.ends_with(entry)) return true;
  return take_end(module, kHubGate) && fmt::format("{}{}", module, kGate).ends_with(entry);
}

std::string target_module(std::string_view module, AdapterNaming naming) {
  const std::string_view last = module.substr(module.rfind('.') + 1);
  const auto matrix = std::ranges::find(kMatrices, last, &ExpertMatrix::hub);
  return std::string(naming == AdapterNaming::kSglang && matrix != kMatrices.end() ? matrix->other : last);
}

std::string adapter_tensor_name(std::string_view module, AdapterFactor factor, AdapterNaming naming) {
  if (factor == AdapterFactor::kWhole) {
    if (!take_end(module, kHubGate)) return fmt::format("{}{}.weight", kAdapterPrefix, module);
    return fmt::format("{}{}{}.weight", kAdapterPrefix, module, kGate);
  }
  const std::string last = target_module(module, naming);
  return fmt::format("{}{}{}.{}{}", kAdapterPrefix, module.substr(0, module.rfind('.') + 1), last,
                     factor_name(module, factor), module == kEmbedding ? "" : ".weight");
}

std::string factor_name(std::string_view module, AdapterFactor factor) {
  const bool is_a = factor == AdapterFactor::kA;
  if (module == kEmbedding) return is_a ? "lora_embedding_B" : "lora_embedding_A";
  return is_a ? "lora_A" : "lora_B";
}

bool is_embedding_factor(std::string_view stored) {
  return stored.find(".lora_embedding_") != stored.npos;
}

}  // namespace mixtune
