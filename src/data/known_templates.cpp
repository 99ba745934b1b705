#include "data/known_templates.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "data/chat_template.h"
#include "data/jinja_normal_form.h"
#include "data/template_sources.h"

namespace mixtune {

namespace {

using Name = ChatTemplateName;

std::vector<KnownTemplate> make_known_templates() {
  const TemplateVariant vicuna = usual_variant(Name::kVicuna), alpaca = usual_variant(Name::kAlpaca);
  const TemplateVariant unsloth_alpaca = {.default_system =
                                              "Below are some instructions that describe some tasks. Write responses "
                                              "that appropriately complete each request.",
                                          .bos = true,
                                          .ends_with_gap = true};
  return {// Of each name first the one that is saved.
          {"mixtral-8x7b-instruct", Name::kMistralV1},
          {"mixtral-8x7b-instruct-2023", Name::kMistralV1},
          {"mistral-7b-instruct-v0.1", Name::kMistralV1},
          {"mistral-v2", Name::kMistralV2},
          {"mistral-v3", Name::kMistralV3},
          {"mistral-7b-instruct-v0.3", Name::kMistralV3},
          {"mixtral-8x22b-instruct-2024", Name::kMistralV3},
          {"mistral-nemo-instruct-2407", Name::kMistralV3Tekken},
          {"nous-hermes-2-mixtral", Name::kChatml},
          {"dolphin-2.5-mixtral", Name::kChatml},
          {"chatml-bare", Name::kChatml},
          {"chatml-trl", Name::kChatml},
          {"chatml-unsloth", Name::kChatml},
          {"chatml-bos", Name::kChatml, {.bos = true}},
          {"qwen1.5-72b-chat", Name::kChatml, {.default_system = "You are a helpful assistant."}},
          {"qwen1.5-72b-chat-2023", Name::kChatml, {.default_system = "You are a helpful assistant"}},
          {"zephyr-7b-beta", Name::kZephyr},
          {"zephyr-unsloth", Name::kZephyr},
          {"vicuna-1.1", Name::kVicuna, vicuna},
          {"alpaca", Name::kAlpaca, alpaca},
          {"alpaca-axolotl", Name::kAlpaca, {.bos = true}},
          {"alpaca-unsloth", Name::kAlpaca, unsloth_alpaca},
          {"llama-2-chat", Name::kLlama2},
          {"llama-2-chat-2023", Name::kLlama2}};
}

const std::vector<std::string>& normal_forms() {
  static const std::vector<std::string> forms = [] {
    std::vector<std::string> all;
    for (const KnownTemplate& known : known_templates()) all.push_back(jinja_normal_form(known.source()));
    return all;
  }();
  return forms;
}

// The number of bytes that two texts have in common at their start.
size_t common(std::string_view a, std::string_view b) {
  const auto limit = static_cast<std::ptrdiff_t>(std::min(a.size(), b.size()));
  return static_cast<size_t>(std::mismatch(a.begin(), a.begin() + limit, b.begin()).first - a.begin());
}

size_t likeness(std::string_view a, std::string_view b) {
  const size_t begin = common(a, b);
  const std::string a_end(a.rbegin(), a.rend() - static_cast<std::ptrdiff_t>(begin)),
      b_end(b.rbegin(), b.rend() - static_cast<std::ptrdiff_t>(begin));
  return begin + common(a_end, b_end);
}

std::string excerpt(std::string_view form, size_t at) {
  constexpr size_t kShown = 60;
  const std::string_view rest = form.substr(at);
  return rest.empty() ? "nothing more"
                      : fmt::format("`{}`{}", printable(rest, kShown), rest.size() > kShown ? "..." : "");
}

}  // namespace

std::string_view KnownTemplate::source() const {
  const std::string_view text = template_source(file);
  MT_CHECK(!text.empty());
  return text;
}

std::span<const KnownTemplate> known_templates() {
  static const std::vector<KnownTemplate> all = make_known_templates();
  return all;
}

const KnownTemplate* find_known_template(std::string_view source) {
  const auto at = std::ranges::find(normal_forms(), jinja_normal_form(source));
  return at == normal_forms().end() ? nullptr : &known_templates()[static_cast<size_t>(at - normal_forms().begin())];
}

std::string nearest_known_template(std::string_view source) {
  const std::string form = jinja_normal_form(source);
  const auto nearest = std::ranges::max_element(normal_forms(), {}, [&](const std::string& known) {
    return 2 * likeness(form, known) * 100 / (form.size() + known.size() + 1);
  });
  const KnownTemplate& known = known_templates()[static_cast<size_t>(nearest - normal_forms().begin())];
  const size_t at = common(form, *nearest);
  return fmt::format("the nearest is {} ({}), which differs first where the folder's has {} and it has {}",
                     template_name(known.name), known.file, excerpt(form, at), excerpt(*nearest, at));
}

std::string_view source_to_save(ChatTemplateName name, const TemplateVariant& variant) {
  const auto at = std::ranges::find_if(
      known_templates(), [&](const KnownTemplate& known) { return known.name == name && known.variant == variant; });
  MT_CHECK(at != known_templates().end());
  return at->source();
}

}  // namespace mixtune
