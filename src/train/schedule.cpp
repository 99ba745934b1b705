#include "train/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "config/schedule_kwargs.h"

namespace mixtune {

namespace {

using std::numbers::pi;

// Steps of a run. As doubles, since they are divided.
struct Course {
  double step, warmup, total;

  double warmed() const { return step / std::max(1.0, warmup); }
  double progress(double ahead = 0) const { return (step - warmup + ahead) / std::max(1.0, total - warmup); }
};

double number(const OptimizerSettings& settings, std::string_view name) {
  return number_kwarg(settings, name).value();
}

// The share of what lies between a lower end and the peak.
double above(double low, double share) {
  return std::max(0.0, share * (1 - low) + low);
}

double wave(double cycles, double progress) {
  return 0.5 * (1 + std::cos(pi * cycles * 2 * progress));
}

double least_share(const OptimizerSettings& settings) {
  const std::optional<double> share = number_kwarg(settings, "min_lr_rate");
  if (share || settings.learning_rate == 0) return share.value_or(0);
  return number(settings, "min_lr") / settings.learning_rate;
}

double cosine_warmup_with_min_lr(const OptimizerSettings& settings, const Course& at) {
  if (at.step >= at.warmup) return above(least_share(settings), wave(number(settings, "num_cycles"), at.progress(1)));
  const std::optional<double> first = number_kwarg(settings, "warmup_lr_rate");
  if (!first) return (at.step + 1) / std::max(1.0, at.warmup);
  return *first + (1 - *first) * at.step / std::max(1.0, at.warmup - 1);
}

double cosine_with_restarts(const OptimizerSettings& settings, const Course& at) {
  if (at.progress() >= 1) return 0;
  return std::max(0.0, 0.5 * (1 + std::cos(pi * std::fmod(number(settings, "num_cycles") * at.progress(), 1.0))));
}

double inverse_sqrt(const OptimizerSettings& settings, const Course& at) {
  const double timescale = number_kwarg(settings, "timescale").value_or(at.warmup > 0 ? at.warmup : 10'000);
  return 1 / std::sqrt((at.step + (timescale - at.warmup)) / timescale);
}

double polynomial(const OptimizerSettings& settings, const Course& at) {
  const double end = number(settings, "lr_end"), peak = settings.learning_rate;
  if (at.step > at.total) return end / peak;
  const double left = 1 - (at.step - at.warmup) / (at.total - at.warmup);
  return ((peak - end) * std::pow(left, number(settings, "power")) + end) / peak;
}

// 0 at 0, 1 at 1.
double risen(const std::string& type, double progress) {
  if (type == "linear") return progress;
  if (type == "cosine") return 0.5 * (1 - std::cos(pi * progress));
  return 1 - std::sqrt(1 - progress);
}

// 1 at 0, 0 at 1.
double decayed(const OptimizerSettings& settings, double progress) {
  const std::string type = text_kwarg(settings, "decay_type");
  if (type == "linear") return 1 - progress;
  if (type == "cosine") return wave(number(settings, "num_cycles"), progress);
  if (type == "exponential") return 2 * std::pow(0.5, progress) - 1;  // Megatron-LM's
  return 1 - std::sqrt(progress);
}

double warmup_stable_decay(const OptimizerSettings& settings, const Course& at) {
  const double low = number(settings, "min_lr_ratio"), decay = number(settings, "num_decay_steps"),
               stable = number_kwarg(settings, "num_stable_steps").value_or(at.total - at.warmup - decay);
  if (at.step < at.warmup) return above(low, risen(text_kwarg(settings, "warmup_type"), at.warmed()));
  if (at.step < at.warmup + stable) return 1;
  if (at.step >= at.warmup + stable + decay) return low;
  return above(low, decayed(settings, (at.step - at.warmup - stable) / std::max(1.0, decay)));
}

// Of the peak; computed in the order of transformers' functions.
double share_at(const OptimizerSettings& settings, const Course& at) {
  const Schedule type = settings.lr_scheduler_type;
  if (type == Schedule::kConstant) return 1;
  if (type == Schedule::kCosineWarmupWithMinLr) return cosine_warmup_with_min_lr(settings, at);
  if (type == Schedule::kWarmupStableDecay) return warmup_stable_decay(settings, at);
  if (at.step < at.warmup) return at.warmed();
  switch (type) {
    case Schedule::kLinear:
      return std::max(0.0, (at.total - at.step) / std::max(1.0, at.total - at.warmup));
    case Schedule::kCosine:
      return std::max(0.0, wave(number(settings, "num_cycles"), at.progress()));
    case Schedule::kCosineWithMinLr:
      return above(least_share(settings), wave(number(settings, "num_cycles"), at.progress()));
    case Schedule::kCosineWithRestarts:
      return cosine_with_restarts(settings, at);
    case Schedule::kInverseSqrt:
      return inverse_sqrt(settings, at);
    case Schedule::kPolynomial:
      return polynomial(settings, at);
    default:
      return 1;
  }
}

}  // namespace

int64_t warmup_steps(const OptimizerSettings& settings, int64_t total_steps) {
  if (settings.warmup_steps > 0) return settings.warmup_steps;
  return static_cast<int64_t>(std::ceil(settings.warmup_ratio * static_cast<double>(total_steps)));
}

double share_of_peak(const OptimizerSettings& settings, int64_t step, int64_t total_steps) {
  return share_at(settings, {.step = static_cast<double>(step),
                             .warmup = static_cast<double>(warmup_steps(settings, total_steps)),
                             .total = static_cast<double>(total_steps)});
}

double learning_rate(const OptimizerSettings& settings, int64_t step, int64_t total_steps) {
  return settings.learning_rate * share_of_peak(settings, step, total_steps);
}

std::string check_stages(const Config& config, int64_t total_steps) {
  const OptimizerSettings& settings = config.optimizer;
  if (settings.lr_scheduler_type != Schedule::kWarmupStableDecay) return "";
  const auto warmup = static_cast<double>(warmup_steps(settings, total_steps)),
             total = static_cast<double>(total_steps), decay = number(settings, "num_decay_steps"),
             stable = number_kwarg(settings, "num_stable_steps").value_or(std::max(0.0, total - warmup - decay));
  const double all = warmup + stable + decay;
  const std::string sum = fmt::format("{} steps of warm-up, {} stable and {} of decay are {}, but the run has {}",
                                      warmup, stable, decay, all, total_steps);
  const std::string where = config.where("lr_scheduler_kwargs");
  if (all > total) throw UserError(where, sum, "lower num_decay_steps, or remove num_stable_steps: it is what is left");
  return all < total ? fmt::format("{}: {}; after them the learning rate stays at its least", where, sum) : "";
}

}  // namespace mixtune
