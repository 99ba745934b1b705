// The losses of the router (docs/router.md): which a run trains with, and their coefficients.
#pragma once

#include <array>
#include <optional>
#include <string>

#include "config/config.h"

namespace mixtune {

// A sum of the losses, each with its coefficient; at most one of a type.
class RouterLosses {
 public:
  RouterLosses() = default;
  RouterLosses(RouterLossType type, double coefficient) { (*this)[type] = coefficient; }

  // Nothing: the loss is not computed. 0: it is computed, for its value alone.
  std::optional<double>& operator[](RouterLossType type) { return coefficients_[static_cast<size_t>(type)]; }
  const std::optional<double>& operator[](RouterLossType type) const {
    return coefficients_[static_cast<size_t>(type)];
  }
  bool is_trained(RouterLossType type) const { return (*this)[type].value_or(0) != 0; }

  bool operator==(const RouterLosses&) const = default;

 private:
  std::array<std::optional<double>, kRouterLossTypes> coefficients_;
};

// As the keys name it: "aux_loss". z: the loss of moe_z_loss_coeff.
const char* name_of(RouterLossType type);

// Whether experts are to be chosen by Sinkhorn's iteration: a value of moe_router_load_balancing_type that is no loss.
bool uses_sinkhorn(const RouterSettings& settings);

// What the settings say; `own` is the checkpoint's router_aux_loss_coef, which is taken where they name no
// load-balancing loss. Throws UserError for what they cannot say.
RouterLosses router_losses(const Config& config, double own);

// "aux_loss 0.01, z 0.001" in the order of types, without transformers' own; "none". For the contract of a run.
std::string megatron_losses_str(const RouterLosses& losses);

// Throws UserError as router_losses does.
void check_router_losses(const Config& config);

}  // namespace mixtune
