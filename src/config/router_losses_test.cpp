#include "config/router_losses.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "config/load.h"
#include "config/testing.h"

namespace mixtune {
namespace {

using testing::HasSubstr;

constexpr double kOwnCoefficient = 0.02;  // the checkpoint's

RouterLosses losses_of(const std::string& text, double own = kOwnCoefficient) {
  return router_losses(parse_config(text, "run.yaml"), own);
}

RouterLosses pooled_loss(double coefficient) {
  return {RouterLossType::kHuggingface, coefficient};
}

TEST(RouterLosses, TheCheckpointsOwnUnlessAnotherIsNamed) {
  EXPECT_EQ(losses_of("seed: 1\n"), pooled_loss(kOwnCoefficient));
  EXPECT_EQ(losses_of("router_aux_loss_coef: 0.1\n"), pooled_loss(0.1));
  EXPECT_EQ(losses_of("moe_aux_loss_coeff: 0.01\n"), RouterLosses(RouterLossType::kSwitch, 0.01));
  EXPECT_EQ(losses_of("moe_router_load_balancing_type: none\n"), pooled_loss(0));
  EXPECT_EQ(losses_of("moe_aux_loss_coeff: 0\n"), pooled_loss(0));
}

TEST(RouterLosses, ZStandsBesideAny) {
  for (const char* other : {"seed: 1", "moe_aux_loss_coeff: 0.01", "router_aux_loss_coef: 0.5"}) {
    RouterLosses expected = losses_of(std::string(other) + "\n");
    expected[RouterLossType::kZ] = 1e-3;
    EXPECT_EQ(losses_of(std::string(other) + "\nmoe_z_loss_coeff: 1e-3\n"), expected) << other;
  }
}

TEST(RouterLosses, ListsGoTogether) {
  RouterLosses expected(RouterLossType::kSwitch, 0.01);
  expected[RouterLossType::kSequence] = 0.002;
  const std::string types = "moe_router_load_balancing_type: [aux_loss, seq_aux_loss, global_aux_loss]\n";
  EXPECT_EQ(losses_of(types + "moe_aux_loss_coeff: [0.01, 0.002, 0]\n"), expected);
  EXPECT_EQ(losses_of("moe_router_load_balancing_type: aux_loss seq_aux_loss\nmoe_aux_loss_coeff: 1e-2 2e-3\n"),
            expected);
  EXPECT_EQ(megatron_losses_str(expected), "seq_aux_loss 0.002, aux_loss 0.01");
  EXPECT_EQ(megatron_losses_str(pooled_loss(0.3)), "none");
}

TEST(RouterLosses, ZeroStandsBesideAnything) {
  EXPECT_EQ(losses_of("moe_aux_loss_coeff: 0\nrouter_aux_loss_coef: 0.1\n"), pooled_loss(0.1));
  EXPECT_EQ(losses_of("moe_router_load_balancing_type: none\nrouter_aux_loss_coef: 0.1\n"), pooled_loss(0.1));
  EXPECT_EQ(losses_of("moe_router_load_balancing_type: none\nmoe_aux_loss_coeff: 0\n"), pooled_loss(0));
  EXPECT_EQ(losses_of("moe_aux_loss_coeff: 0.1\nrouter_aux_loss_coef: 0\n"),
            RouterLosses(RouterLossType::kSwitch, 0.1));
}

TEST(RouterLosses, SinkhornIsNone) {
  const std::string sinkhorn = "moe_router_load_balancing_type: sinkhorn\n";
  EXPECT_EQ(losses_of(sinkhorn), pooled_loss(0));
  EXPECT_EQ(losses_of(sinkhorn + "moe_aux_loss_coeff: 0\nrouter_aux_loss_coef: 0\n"), pooled_loss(0));
  RouterLosses with_z = pooled_loss(0);
  with_z[RouterLossType::kZ] = 1e-3;
  EXPECT_EQ(losses_of(sinkhorn + "moe_z_loss_coeff: 1e-3\n"), with_z);
  EXPECT_TRUE(uses_sinkhorn(parse_config(sinkhorn, "run.yaml").router));
  for (const char* other : {"seed: 1\n", "moe_router_load_balancing_type: none\n", "moe_aux_loss_coeff: 0.1\n"})
    EXPECT_FALSE(uses_sinkhorn(parse_config(other, "run.yaml").router)) << other;
}

TEST(RouterLosses, WhatContradictsIsRefused) {
  EXPECT_THAT(error_of("router_aux_loss_coef: 0.02\nmoe_aux_loss_coeff: 0.01\n"),
              HasSubstr("run.yaml:1: router_aux_loss_coef: is the weight of one load-balancing loss, and "
                        "moe_aux_loss_coeff that of another; set one of them to 0"));
  const std::string types = "moe_router_load_balancing_type: ", number = "moe_aux_loss_coeff: ";
  EXPECT_THAT(error_of(types + "none\n" + number + "0.1\n"), HasSubstr("moe_router_load_balancing_type is none"));
  EXPECT_THAT(error_of(types + "[aux_loss, seq_aux_loss]\n" + number + "0.1\n"),
              HasSubstr("1 coefficients for 2 losses"));
  EXPECT_THAT(error_of(types + "seq_aux_loss\n"), HasSubstr("0 coefficients for 1 losses"));
  EXPECT_THAT(error_of(types + "[aux_loss, aux_loss]\n" + number + "[1, 2]\n"),
              HasSubstr("'aux_loss' stands there twice"));
  EXPECT_THAT(error_of(types + "[aux_loss, none]\n" + number + "[1, 2]\n"), HasSubstr("'none' stands by itself"));
  EXPECT_THAT(error_of(types + "aux_los\n" + number + "1\n"), HasSubstr("did you mean 'aux_loss'?"));
  EXPECT_THAT(error_of(types + "[sinkhorn, aux_loss]\n" + number + "[0, 1]\n"),
              HasSubstr("'sinkhorn' stands by itself; remove it from the list"));
  EXPECT_THAT(error_of(types + "sinkhorn\n" + number + "0.1\n"),
              HasSubstr("is a weight, but moe_router_load_balancing_type is sinkhorn"));
  EXPECT_THAT(
      error_of(types + "sinkhorn\nrouter_aux_loss_coef: 0.1\n"),
      HasSubstr("run.yaml:2: router_aux_loss_coef: is the weight of a load-balancing loss, and sinkhorn is to"));
  EXPECT_THAT(error_of(types + "sinkhon\n"), HasSubstr("did you mean 'sinkhorn'?"));
  EXPECT_THAT(error_of(types + "huggingface\n" + number + "1\n"),
              HasSubstr("router_aux_loss_coef is that loss's weight"));
  EXPECT_THAT(error_of(number + "-1\n"), HasSubstr("-1 is out of range"));
  EXPECT_THAT(error_of(number + "nan\n"), HasSubstr("out of range"));
  EXPECT_THAT(error_of(number + "lots\n"), HasSubstr("'lots' is not a number"));
}

}  // namespace
}  // namespace mixtune
