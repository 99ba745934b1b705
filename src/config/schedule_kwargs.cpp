#include "config/schedule_kwargs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/suggest.h"
#include "config/keys.h"

namespace mixtune {

namespace {

constexpr double kMostSteps = 1e12;

struct Kwarg {
  std::vector<Schedule> of;
  std::string_view name;
  Key key;                // what it may be
  std::string_view text;  // of its value where it is not set; "": it has none
};

const std::vector<Kwarg>& kwargs() {
  using enum Schedule;
  static const std::vector<Schedule> min_lr = {kCosineWithMinLr, kCosineWarmupWithMinLr};
  static const Key cycles = item_key(KeyType::kNumber, {0, 1e6, Bounds::kOpenLow}),
                   rate = item_key(KeyType::kNumber, {0, 100}), share = item_key(KeyType::kNumber, {0, 1}),
                   steps = item_key(KeyType::kInteger, {0, kMostSteps});
  static const std::vector<Kwarg> all = {
      {{kCosine, kCosineWithMinLr, kCosineWarmupWithMinLr, kWarmupStableDecay}, "num_cycles", cycles, "0.5"},
      {{kCosineWithRestarts}, "num_cycles", cycles, "1"},
      {min_lr, "min_lr", rate, ""},
      {min_lr, "min_lr_rate", share, ""},
      {{kCosineWarmupWithMinLr}, "warmup_lr_rate", share, ""},
      {{kInverseSqrt}, "timescale", item_key(KeyType::kInteger, {1, kMostSteps}), ""},
      {{kPolynomial}, "lr_end", rate, "1e-7"},
      {{kPolynomial}, "power", item_key(KeyType::kNumber, {0, 1000, Bounds::kOpenLow}), "1"},
      {{kWarmupStableDecay}, "num_decay_steps", steps, ""},
      {{kWarmupStableDecay}, "num_stable_steps", steps, ""},
      {{kWarmupStableDecay}, "min_lr_ratio", share, "0"},
      {{kWarmupStableDecay}, "warmup_type", item_key(KeyType::kChoice, {}, {"linear", "cosine", "1-sqrt"}), "linear"},
      {{kWarmupStableDecay},
       "decay_type",
       item_key(KeyType::kChoice, {}, {"linear", "cosine", "1-sqrt", "exponential"}),
       "cosine"}};
  return all;
}

bool is_of(const Kwarg& kwarg, Schedule schedule) {
  return std::ranges::find(kwarg.of, schedule) != kwarg.of.end();
}

const Kwarg* find(Schedule schedule, std::string_view name) {
  const auto found =
      std::ranges::find_if(kwargs(), [&](const Kwarg& kwarg) { return kwarg.name == name && is_of(kwarg, schedule); });
  return found == kwargs().end() ? nullptr : &*found;
}

std::vector<std::string> names_of(Schedule schedule) {
  std::vector<std::string> names;
  for (const Kwarg& kwarg : kwargs())
    if (is_of(kwarg, schedule)) names.emplace_back(kwarg.name);
  return names;
}

std::string name_of(Schedule schedule) {
  Config config;
  config.optimizer.lr_scheduler_type = schedule;
  return std::get<std::string>(find_key("lr_scheduler_type")->get(config));
}

bool is_set(const OptimizerSettings& settings, std::string_view name) {
  return settings.lr_scheduler_kwargs.contains(name);
}

// As text; "": it has none.
std::string kwarg_text(const OptimizerSettings& settings, std::string_view name) {
  const Kwarg* kwarg = find(settings.lr_scheduler_type, name);
  MT_CHECK(kwarg != nullptr);
  const auto set = settings.lr_scheduler_kwargs.find(name);
  return set == settings.lr_scheduler_kwargs.end() ? std::string(kwarg->text) : set->second;
}

constexpr const char* kKey = "lr_scheduler_kwargs";

void check_item(const Config& config, std::string_view name, std::string_view text) {
  const Schedule schedule = config.optimizer.lr_scheduler_type;
  if (const Kwarg* kwarg = find(schedule, name)) {
    parse_value(kwarg->key, text, fmt::format("{}: {}", config.where(kKey), name));
    return;
  }
  const std::vector<std::string> names = names_of(schedule);
  const std::string near = nearest_name(name.substr(0, 100), names);
  throw UserError(config.where(kKey),
                  fmt::format("'{}' is no setting of lr_scheduler_type {}", printable(name), name_of(schedule)),
                  names.empty()  ? "it has none"
                  : near.empty() ? fmt::format("it has: {}", fmt::join(names, ", "))
                                 : fmt::format("did you mean '{}'?", near));
}

void check_min_lr(const Config& config) {
  const OptimizerSettings& o = config.optimizer;
  const std::string type = name_of(o.lr_scheduler_type);
  const bool absolute = is_set(o, "min_lr"), share = is_set(o, "min_lr_rate");
  if (absolute == share)
    throw UserError(
        absolute ? config.where(kKey) : config.where("lr_scheduler_type"),
        absolute ? "there are both min_lr and min_lr_rate" : fmt::format("{} needs the rate it falls to", type),
        absolute ? "keep one of the two"
                 : "set lr_scheduler_kwargs: {min_lr: RATE}, or {min_lr_rate: SHARE} of learning_rate");
  if (absolute && number_kwarg(o, "min_lr").value() > o.learning_rate)
    throw UserError(fmt::format("{}: min_lr", config.where(kKey)),
                    fmt::format("{} is above learning_rate, {}", kwarg_text(o, "min_lr"), o.learning_rate),
                    "lower it: a run begins to fall at learning_rate");
}

void check_polynomial(const Config& config) {
  const OptimizerSettings& o = config.optimizer;
  if (const double end = number_kwarg(o, "lr_end").value(); end >= o.learning_rate)
    throw UserError(
        is_set(o, "lr_end") ? fmt::format("{}: lr_end", config.where(kKey)) : config.where("lr_scheduler_type"),
        fmt::format("polynomial falls to lr_end, {}, which is not below learning_rate, {}", end, o.learning_rate),
        "set lr_scheduler_kwargs: {lr_end: RATE} below it");
}

void check_decay(const Config& config) {
  if (!is_set(config.optimizer, "num_decay_steps"))
    throw UserError(config.where("lr_scheduler_type"), "warmup_stable_decay needs the number of steps of its decay",
                    "set lr_scheduler_kwargs: {num_decay_steps: N}");
}

}  // namespace

std::optional<double> number_kwarg(const OptimizerSettings& settings, std::string_view name) {
  const std::string text = kwarg_text(settings, name);
  if (text.empty()) return std::nullopt;
  static const Key number = item_key(KeyType::kNumber, {0, kMostSteps});
  return std::get<double>(parse_value(number, text, name));
}

std::string text_kwarg(const OptimizerSettings& settings, std::string_view name) {
  return kwarg_text(settings, name);
}

void check_schedule_kwargs(const Config& config) {
  for (const auto& [name, text] : config.optimizer.lr_scheduler_kwargs) check_item(config, name, text);
  switch (config.optimizer.lr_scheduler_type) {
    case Schedule::kCosineWithMinLr:
    case Schedule::kCosineWarmupWithMinLr:
      return check_min_lr(config);
    case Schedule::kPolynomial:
      return check_polynomial(config);
    case Schedule::kWarmupStableDecay:
      return check_decay(config);
    default:
      return;
  }
}

}  // namespace mixtune
