#include "config/router_losses.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <sstream>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/suggest.h"
#include "config/keys.h"

namespace mixtune {

namespace {

constexpr std::array<const char*, kRouterLossTypes> kNames = {"z", "seq_aux_loss", "huggingface", "aux_loss",
                                                              "global_aux_loss"};
constexpr std::array kBalancing = {RouterLossType::kSwitch, RouterLossType::kSequence, RouterLossType::kGlobal};
constexpr const char *kType = "moe_router_load_balancing_type", *kCoefficient = "moe_aux_loss_coeff";
constexpr const char* kNoLosses[] = {"none", "sinkhorn"};

RouterLossType balancing_type(std::string_view text, const std::string& where) {
  const auto found = std::ranges::find_if(kBalancing, [&](RouterLossType type) { return text == name_of(type); });
  if (found != kBalancing.end()) return *found;
  if (std::ranges::find(kNoLosses, text) != std::end(kNoLosses))
    throw UserError(where, fmt::format("'{}' stands by itself", text), "remove it from the list");
  const std::vector<std::string_view> names = {"none", "aux_loss", "seq_aux_loss", "global_aux_loss", "sinkhorn"};
  const std::string near = nearest_name(text.substr(0, 100), names);
  throw UserError(where, fmt::format("there is no load-balancing loss '{}'", printable(text)),
                  text == "huggingface" ? "remove it: router_aux_loss_coef is that loss's weight"
                  : near.empty()        ? fmt::format("use one of: {}", fmt::join(names, ", "))
                                        : fmt::format("did you mean '{}'?", near));
}

// The items of a list, each of one word or of several, as Megatron-LM's arguments have them.
std::vector<std::string> words_of(const std::vector<std::string>& items) {
  std::vector<std::string> words;
  for (const std::string& item : items) {
    std::istringstream stream(item);
    for (std::string word; stream >> word;) words.push_back(word);
  }
  return words;
}

// What is named in the place of losses; nothing where these are.
std::optional<std::string> no_losses(const RouterSettings& settings) {
  const std::vector<std::string> names = words_of(settings.moe_router_load_balancing_type);
  const bool is_none = names.size() == 1 && std::ranges::find(kNoLosses, names[0]) != std::end(kNoLosses);
  return is_none ? std::optional(names[0]) : std::nullopt;
}

// The types that are named; aux_loss where none is, as in Megatron-Core.
std::vector<RouterLossType> balancing_types(const Config& config) {
  const std::vector<std::string> names = words_of(config.router.moe_router_load_balancing_type);
  if (names.empty()) return {RouterLossType::kSwitch};
  if (no_losses(config.router)) return {};
  std::vector<RouterLossType> types;
  for (const std::string& name : names) {
    const RouterLossType type = balancing_type(name, config.where(kType));
    if (std::ranges::find(types, type) != types.end())
      throw UserError(config.where(kType), fmt::format("'{}' stands there twice", printable(name)), "name it once");
    types.push_back(type);
  }
  return types;
}

std::vector<double> coefficients(const Config& config) {
  std::vector<double> numbers;
  const Key number = item_key(KeyType::kNumber, {0, 100});
  for (const std::string& text : words_of(config.router.moe_aux_loss_coeff))
    numbers.push_back(std::get<double>(parse_value(number, text, config.where(kCoefficient))));
  return numbers;
}

// Megatron-Core's load-balancing losses.
RouterLosses balancing_losses(const Config& config) {
  const std::vector<RouterLossType> types = balancing_types(config);
  const std::vector<double> numbers = coefficients(config);
  RouterLosses losses;
  if (types.empty() && std::ranges::any_of(numbers, [](double c) { return c != 0; }))
    throw UserError(
        config.where(kCoefficient),
        fmt::format("is a weight, but moe_router_load_balancing_type is {}", no_losses(config.router).value()),
        "set it to 0, or name a loss");
  if (types.empty() || (numbers.empty() && config.router.moe_router_load_balancing_type.empty())) return losses;
  if (numbers.size() != types.size())
    throw UserError(config.where(kCoefficient),
                    fmt::format("{} coefficients for {} losses", numbers.size(), types.size()),
                    "give one for each, in the order of moe_router_load_balancing_type");
  for (size_t i = 0; i < types.size(); ++i)
    if (numbers[i] != 0) losses[types[i]] = numbers[i];
  return losses;
}

bool names_balancing(const RouterSettings& settings) {
  return !settings.moe_aux_loss_coeff.empty() || !settings.moe_router_load_balancing_type.empty();
}

}  // namespace

const char* name_of(RouterLossType type) {
  return kNames[static_cast<size_t>(type)];
}

bool uses_sinkhorn(const RouterSettings& settings) {
  return no_losses(settings) == "sinkhorn";
}

RouterLosses router_losses(const Config& config, double own) {
  const RouterSettings& settings = config.router;
  RouterLosses losses = balancing_losses(config);
  const bool balances = losses != RouterLosses();
  if (uses_sinkhorn(settings) && settings.router_aux_loss_coef.value_or(0) != 0)
    throw UserError(config.where("router_aux_loss_coef"),
                    "is the weight of a load-balancing loss, and sinkhorn is to balance without one",
                    "set it to 0, or moe_router_load_balancing_type to none");
  if (balances && settings.router_aux_loss_coef.value_or(0) != 0)
    throw UserError(config.where("router_aux_loss_coef"),
                    "is the weight of one load-balancing loss, and moe_aux_loss_coeff that of another",
                    "set one of them to 0");
  if (!balances)
    losses[RouterLossType::kHuggingface] = settings.router_aux_loss_coef.value_or(names_balancing(settings) ? 0 : own);
  if (settings.moe_z_loss_coeff != 0) losses[RouterLossType::kZ] = settings.moe_z_loss_coeff;
  return losses;
}

void check_router_losses(const Config& config) {
  router_losses(config, 0);
}

std::string megatron_losses_str(const RouterLosses& losses) {
  std::vector<std::string> parts;
  for (size_t i = 0; i < kRouterLossTypes; ++i) {
    const auto type = static_cast<RouterLossType>(i);
    if (type != RouterLossType::kHuggingface && losses.is_trained(type))
      parts.push_back(fmt::format("{} {}", name_of(type), *losses[type]));
  }
  return parts.empty() ? "none" : fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace mixtune
