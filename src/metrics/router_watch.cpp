#include "metrics/router_watch.h"

#include <fmt/format.h>

#include <cmath>

namespace mixtune {

namespace {

constexpr const char* kBalance = "raise moe_aux_loss_coeff (or router_aux_loss_coef), or lower learning_rate";

bool is_there(double number) {
  return std::isfinite(number) && number > 0;
}

}  // namespace

std::vector<std::string> RouterWatch::look(const StepRecord& record) {
  std::vector<std::string> warnings;
  const auto add = [&](std::string warning) {
    if (!warning.empty()) warnings.push_back(std::move(warning));
  };
  add(look_at_collapse(record.expert_share, record.expert_imbalance));
  add(look_at_imbalance(record.expert_imbalance));
  add(look_at_entropy(record.router_entropy));
  add(look_at_logits(record.router_logit_scale));
  add(look_at_drops(record.drop_rate));
  add(look_at_norm(record.router_grad_norm));
  return warnings;
}

// What an expert gets by what it would get in balance is the imbalance.
std::string RouterWatch::look_at_collapse(double share, double imbalance) {
  if (!is_there(share) || !is_there(imbalance)) return "";
  const double even = share / imbalance;
  collapsed_ = share > even + kCollapse * (1 - even) ? collapsed_ + 1 : 0;
  if (collapsed_ != kCollapsedSteps) return "";
  return fmt::format(
      "expert_share {:.2f}: for {} steps one expert of a layer got nearly all of its tokens, where {:.2f} is balance; "
      "go on from an earlier checkpoint, and {}",
      share, kCollapsedSteps, even, kBalance);
}

std::string RouterWatch::look_at_imbalance(double imbalance) {
  if (!is_there(imbalance)) return "";
  imbalance_.add(imbalance);
  const bool over = imbalance_.last() && *imbalance_.last() > kImbalanceFactor * *imbalance_.smallest();
  if (!imbalance_onset_.begins(over)) return "";
  return fmt::format("expert_imbalance has a mean of {:.3g} over {} steps, over {} times its smallest, {:.3g}; {}",
                     *imbalance_.last(), RunningMean::kSteps, kImbalanceFactor, *imbalance_.smallest(), kBalance);
}

std::string RouterWatch::look_at_entropy(double entropy) {
  if (!std::isfinite(entropy)) return "";
  entropy_.add(entropy);
  const bool under = entropy_.last() && *entropy_.last() < kEntropyFactor * *entropy_.largest();
  if (!entropy_onset_.begins(under)) return "";
  return fmt::format(
      "router_entropy has a mean of {:.3g} over {} steps, under {} times its largest, {:.3g}: the routers grow "
      "certain, and other experts learn less; raise moe_z_loss_coeff or moe_aux_loss_coeff",
      *entropy_.last(), RunningMean::kSteps, kEntropyFactor, *entropy_.largest());
}

std::string RouterWatch::look_at_logits(double scale) {
  if (!is_there(scale)) return "";
  logits_.add(scale);
  const double limit = kLogitFactor * std::max(logits_.smallest().value_or(0), kLeastLogits);
  if (!logits_onset_.begins(logits_.last() && *logits_.last() > limit)) return "";
  return fmt::format(
      "router_logit_scale has a mean of {:.3g} over {} steps, over {:.3g}, {} times its smallest; raise "
      "moe_z_loss_coeff, or lower the routers' learning rate (lr_groups: router)",
      *logits_.last(), RunningMean::kSteps, limit, kLogitFactor);
}

std::string RouterWatch::look_at_drops(double rate) {
  if (!std::isfinite(rate)) return "";
  drops_.add(rate);
  if (!drops_onset_.begins(drops_.last() && *drops_.last() > kDropRate)) return "";
  return fmt::format(
      "drop_rate has a mean of {:.3g} over {} steps, over {}: these tokens' experts learn nothing of them; raise "
      "moe_expert_capacity_factor, or moe_aux_loss_coeff for an evener load",
      *drops_.last(), RunningMean::kSteps, kDropRate);
}

std::string RouterWatch::look_at_norm(double norm) {
  if (!std::isfinite(norm)) return "";
  const double usual = norms_.median();
  norms_.add(norm);
  vanished_ = norm < kVanished * usual ? vanished_ + 1 : 0;
  if (norm_onset_.begins(usual > 0 && norm > kNormFactor * usual))
    return fmt::format(
        "router_grad_norm {:.4g} is over {} times {:.4g}, the median of the steps before; if it lasts, lower the "
        "routers' learning rate (lr_groups: router) or max_grad_norm",
        norm, kNormFactor, usual);
  if (vanished_ != kVanishedSteps) return "";
  return fmt::format(
      "router_grad_norm {:.4g} is for {} steps under {} times {:.4g}, the median of the steps before: the routers "
      "learn nothing more; look at expert_share and router_entropy, and {}",
      norm, kVanishedSteps, kVanished, usual, kBalance);
}

}  // namespace mixtune
