#include "train/step_record.h"

#include <cmath>
#include <numeric>
#include <span>
#include <tuple>

namespace mixtune {

namespace {

// All but z, unscaled.
double balancing_loss(const RouterLosses& means) {
  double sum = 0;
  for (const RouterLossType type :
       {RouterLossType::kSequence, RouterLossType::kHuggingface, RouterLossType::kSwitch, RouterLossType::kGlobal})
    sum += means[type].value_or(0);
  return sum;
}

// NaN where any is.
double largest(std::span<const double> of_layers) {
  double most = 0;
  for (const double number : of_layers)
    if (number > most || std::isnan(number)) most = number;
  return most;
}

double mean(std::span<const double> of_layers) {
  return std::accumulate(of_layers.begin(), of_layers.end(), 0.0) / static_cast<double>(of_layers.size());
}

}  // namespace

StepRecord step_record(const Step& rows, const StepRunner::Result& result) {
  StepRecord record{.epoch = rows.epoch,
                    .lm_loss = result.token_loss / rows.target_weight,
                    .aux_loss = balancing_loss(result.router),
                    .z_loss = result.router[RouterLossType::kZ].value_or(0),
                    .grad_norm = result.grad_norm,
                    .router_grad_norm = result.router_grad_norm,
                    .tokens = rows.live_tokens,
                    .target_tokens = rows.target_tokens,
                    .recomputed_layers = result.recomputed,
                    .memory_gib = result.memory_gib,
                    .parallel = result.parallel,
                    .routers = result.routers,
                    .operands = result.operands};
  record.loss = record.lm_loss + result.router_loss;
  std::tie(record.drop_rate, record.dropped_tokens_rate) = result.drop_rates;
  if (const RouterRecord* routers = result.routers) {
    record.expert_imbalance = largest(routers->layer_imbalance);
    record.expert_share = largest(routers->layer_share);
    record.router_entropy = mean(routers->layer_entropy);
    record.router_logit_scale = largest(routers->layer_logit_scale);
  }
  return record;
}

}  // namespace mixtune
