#include "model/freeze.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/suggest.h"
#include "model/params.h"

namespace mixtune {

namespace {

// In the order of WeightGroup.
constexpr std::array<std::string_view, 6> kParts = {"attention", "embeddings", "experts", "lm_head", "norms", "router"};
constexpr std::string_view kLayers = "layers.";
constexpr std::string_view kFused =
    "q_proj, k_proj and v_proj of a layer are trained or frozen together, and so are w1 and w3 of all its experts, and "
    "w2 of all its experts: name all of them, or none";

std::string printed(std::string_view entry) {
  return fmt::format("'{}'", printable(entry, 200));
}

std::optional<int64_t> parse_layer(std::string_view text) {
  int64_t layer = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), layer);
  const bool whole = error == std::errc() && end == text.data() + text.size() && !text.starts_with('-');
  return whole ? std::optional(layer) : std::nullopt;
}

// Whether `name` is `pattern`, in which each * stands for any characters. Goes back to the last star alone.
bool matches(std::string_view pattern, std::string_view name) {
  size_t p = 0, n = 0, star = pattern.npos, tried = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      tried = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p, ++n;
    } else if (star != pattern.npos) {
      p = star + 1;
      n = ++tried;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == pattern.npos;
}

// What an entry names.
class Selection {
 public:
  Selection(std::string_view entry, const MixtralConfig& config, const std::string& where)
      : entry_(entry), where_(where) {
    std::string_view part = entry;
    if (entry.find('*') != entry.npos || (entry.find('.') != entry.npos && !entry.starts_with(kLayers))) {
      pattern_ = entry;
      return;
    }
    if (entry.starts_with(kLayers)) {
      part.remove_prefix(kLayers.size());
      const size_t end = part.find('.');
      parse_layers(part.substr(0, end), config.num_hidden_layers);
      if (end == part.npos) return;
      part.remove_prefix(end + 1);
    }
    parse_part(part, config);
  }

  bool has(const ParamSpec& spec, const HfBlock& block) const {
    if (!pattern_.empty()) return matches(pattern_, block.name);
    return (!group_ || spec.group == *group_) &&
           (!layers_ || (spec.place.layer >= layers_->first && spec.place.layer <= layers_->second));
  }

  [[noreturn]] void throw_empty(std::span<const ParamSpec> specs) const {
    if (pattern_.empty()) fail("names no weights", "the embedding, the last norm and the head are in no layer");
    std::vector<std::string_view> names;
    for (const ParamSpec& spec : specs)
      for (const HfBlock& block : spec.blocks)
        if (spec.place.layer <= 0) names.push_back(block.name);
    constexpr size_t kMost = 10;
    names.resize(std::min(names.size(), kMost));
    fail("matches no tensor",
         fmt::format("there are {}, ...: 'mixtune inspect FILE.safetensors' lists all", fmt::join(names, ", ")));
  }

 private:
  [[noreturn]] void fail(std::string_view what, std::string_view mend) const {
    throw UserError(where_, fmt::format("{} {}", printed(entry_), what), mend);
  }

  void parse_layers(std::string_view range, int64_t there) {
    const size_t dash = range.find('-');
    const std::optional<int64_t> first = parse_layer(range.substr(0, dash)),
                                 last = dash == range.npos ? first : parse_layer(range.substr(dash + 1));
    if (!first || !last || *first > *last) fail("is no range of layers", "write layers.3 or layers.0-7");
    if (*last >= there)
      fail(fmt::format("goes beyond the model, whose layers are 0 to {}", there - 1), "name layers that there are");
    layers_ = {*first, *last};
  }

  void parse_part(std::string_view part, const MixtralConfig& config) {
    const auto found = std::ranges::find(kParts, part);
    if (found == kParts.end()) {
      const std::string near = nearest_name(part.substr(0, 100), kParts);
      fail("names no weights", near.empty() ? fmt::format("there are {}, layers.0 to layers.{}, a part of layers as in "
                                                          "layers.0.router, and tensors' names with *",
                                                          fmt::join(kParts, ", "), config.num_hidden_layers - 1)
                                            : fmt::format("did you mean '{}'?", near));
    }
    group_ = static_cast<WeightGroup>(found - kParts.begin());
    if (*group_ == WeightGroup::kHead && config.tie_word_embeddings)
      fail("names no weights: the head has none of its own (tie_word_embeddings)", "freeze embeddings, which is both");
  }

  std::string_view entry_;
  const std::string& where_;
  std::string_view pattern_;
  std::optional<std::pair<int64_t, int64_t>> layers_;
  std::optional<WeightGroup> group_;
};

// Calls `visit` with each tensor of the parameter, on whichever rank.
template <class F>
void for_each_tensor(const ParamSpec& spec, F&& visit) {
  for (const auto* blocks : {&spec.blocks, &spec.elsewhere})
    for (const HfBlock& block : *blocks) visit(block);
}

// Whether all of its tensors are selected. Throws where some are.
bool is_frozen(const ParamSpec& spec, std::span<const Selection> selections, const Freeze& freeze) {
  std::string_view frozen, trained;
  size_t by = 0;
  for_each_tensor(spec, [&](const HfBlock& block) {
    const auto found = std::ranges::find_if(selections, [&](const Selection& each) { return each.has(spec, block); });
    (found == selections.end() ? trained : frozen) = block.name;
    if (found != selections.end()) by = static_cast<size_t>(found - selections.begin());
  });
  if (!frozen.empty() && !trained.empty())
    throw UserError(freeze.where,
                    fmt::format("{} has {} but not {}, and the two are one parameter here", printed(freeze.entries[by]),
                                frozen, trained),
                    kFused);
  return !frozen.empty();
}

bool has_any(const Selection& selection, std::span<const ParamSpec> specs) {
  return std::ranges::any_of(specs, [&](const ParamSpec& spec) {
    bool any = false;
    for_each_tensor(spec, [&](const HfBlock& block) { any |= selection.has(spec, block); });
    return any;
  });
}

// " (4 of 14 pairs)", " (A or B alone of 14 of 14 pairs)", " (4 of 14 pairs, and A or B alone of 2)"; "" where none is.
std::string frozen_pairs(std::span<const ParamSpec> specs) {
  std::map<std::string, int> frozen;  // factors, by module
  for (const ParamSpec& spec : specs)
    if (spec.origin == ParamSpec::Origin::kInitialised && !spec.is_initial_pair())
      for (const HfBlock& block : spec.blocks)
        frozen[block.name.substr(0, block.name.rfind(".lora_"))] += spec.trainable ? 0 : 1;
  const auto with = [&](int factors) {
    return std::ranges::count_if(frozen, [&](const auto& pair) { return pair.second == factors; });
  };
  const auto whole = with(2), halves = with(1);
  if (whole == 0 && halves == 0) return "";
  if (whole == 0) return fmt::format(" (A or B alone of {} of {} pairs)", halves, frozen.size());
  return fmt::format(" ({} of {} pairs{})", whole, frozen.size(),
                     halves == 0 ? "" : fmt::format(", and A or B alone of {}", halves));
}

}  // namespace

void apply(const Freeze& freeze, const MixtralConfig& config, std::span<ParamSpec> specs) {
  if (!freeze.is_set()) return;
  std::vector<Selection> selections;
  for (const std::string& entry : freeze.entries) {
    selections.emplace_back(entry, config, freeze.where);
    if (!has_any(selections.back(), specs)) selections.back().throw_empty(specs);
  }
  for (ParamSpec& spec : specs) spec.trainable = !is_frozen(spec, selections, freeze) && spec.trainable;
  if (std::ranges::none_of(specs, &ParamSpec::trainable))
    throw UserError(freeze.where, "freezes every weight: nothing is left to train", "leave out what is to be trained");
}

bool freezes_all(const Freeze& freeze, const Lora& lora, const MixtralConfig& config, WeightGroup group) {
  const std::vector<ParamSpec> specs = make_layout(config, {0, config.num_local_experts}, freeze, lora).specs;
  return std::ranges::none_of(specs, [&](const ParamSpec& spec) { return spec.group == group && spec.trainable; });
}

std::string describe_trained(const Freeze& freeze, const Lora& lora, const MixtralConfig& config) {
  if (!freeze.is_set() && !lora.is_set()) return "";
  int64_t all = 0, trained = 0;
  const std::vector<ParamSpec> specs = make_layout(config, {0, config.num_local_experts}, freeze, lora).specs;
  for (const ParamSpec& spec : specs) {
    if (!spec.is_initial_pair()) all += spec.shape.elements();
    if (spec.trainable) trained += spec.shape.elements();
  }
  std::string text = fmt::format("trained: {} of {} parameters ({:.1f}%)", trained, all,
                                 100.0 * static_cast<double>(trained) / static_cast<double>(all));
  if (lora.is_set()) text += fmt::format(", adapters of {}", lora.str());
  if (!freeze.is_set()) return text;
  const bool with_head = config.tie_word_embeddings && freezes_all(freeze, lora, config, WeightGroup::kEmbeddings);
  return fmt::format(
      "{}; frozen: {}{}{}", text, fmt::join(freeze.entries, ", "), frozen_pairs(specs),
      with_head && !lora.is_set() ? "; with the embeddings the head, which is the same (tie_word_embeddings)" : "");
}

}  // namespace mixtune
