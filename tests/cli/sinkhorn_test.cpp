// Experts that sinkhorn chooses, through the program.
#include "rank_runs.h"

namespace mixtune {
namespace {

const char* const kSinkhorn = "--moe_router_load_balancing_type=sinkhorn";

class SinkhornRuns : public RankRuns {
 protected:
  Outcome trained(const std::string& out, Args more) const {
    more.insert(more.begin(), {"--max_steps=2", "--save_steps=1"});
    return done(train(out, more));
  }
  // Of the busiest expert, in the first step, times its even share; the mean of the layers.
  double first_imbalance(const std::string& out) const {
    const auto layers = metrics(out)[0]["layer_expert_tokens"].get<std::vector<std::vector<double>>>();
    double sum = 0;
    for (const auto& tokens : layers)
      sum += 2 * std::max(tokens[0], tokens[1]) / (tokens[0] + tokens[1]) / static_cast<double>(layers.size());
    return sum;
  }
};

// What a model with one expert a token is without sinkhorn: one of sigmoid scores.
TEST_F(SinkhornRuns, BalanceInTrainingAndLeaveAModelOfItsScores) {
  const Outcome outcome = trained("out", {kSinkhorn});
  expect_part(outcome.err, "router scores: sigmoid; 1 of 2 experts a token\n");
  expect_part(
      outcome.err,
      "warning: --moe_router_load_balancing_type: sinkhorn: in training experts are chosen by what tokens share");
  EXPECT_EQ(count_of(outcome.err, "warning: transformers' Mixtral has no such scores"), 1);
  EXPECT_EQ(config_of("out/checkpoint-2")["moe_router_score_function"], "sigmoid");
  EXPECT_NEAR(loss_of({"out"}), last_evaluation("out"), 1e-6);
  trained("plain", {"--moe_router_load_balancing_type=none", "--moe_router_score_function=sigmoid"});
  // Of the same logits. Scores are balanced, and so tokens' choices more or less.
  EXPECT_LT(first_imbalance("out"), first_imbalance("plain") - 0.05);
  trained("both", {kSinkhorn, "--moe_router_topk=2"});
  EXPECT_EQ(config_of("both/checkpoint-2")["moe_router_pre_softmax"], true);
}

// The choice is made before rows are sent.
TEST_F(SinkhornRuns, ChooseTheSameWhereverExpertsAre) {
  trained("one", {"--nproc=2", kSinkhorn, "--moe_expert_capacity_factor=0.7"});
  trained("two", {"--nproc=2", "--expert_model_parallel_size=2", kSinkhorn, "--moe_expert_capacity_factor=0.7"});
  expect_same_metrics("one", "two");
}

TEST_F(SinkhornRuns, GoOnWithSinkhornAlone) {
  trained("whole", {kSinkhorn});
  trained("cut", {kSinkhorn});
  fs::remove_all(path("cut/checkpoint-2"));
  write(path("cut/latest"), "checkpoint-1\n");
  const auto go_on = [&](const Args& more) {
    Args args = {"--max_steps=2", "--save_steps=1", "--resume_from_checkpoint=auto"};
    args.insert(args.end(), more.begin(), more.end());
    return run(train("cut", args));
  };
  expect_one_error(go_on({"--moe_router_load_balancing_type=none"}),
                   {"router_losses was sinkhorn, is none;", "--allow_changes router_losses"});
  const Outcome outcome = go_on({kSinkhorn});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  for (const char* file : {"config.json", "model.safetensors"})
    EXPECT_TRUE(read(path(std::string("cut/checkpoint-2/") + file)) ==
                read(path(std::string("whole/checkpoint-2/") + file)))
        << file;
}

TEST_F(SinkhornRuns, WhatContradictsIsRefused) {
  const auto refused = [&](const Args& more, const std::vector<std::string>& parts) {
    Args args = {kSinkhorn};
    args.insert(args.end(), more.begin(), more.end());
    const Outcome outcome = run(train("out", args));
    EXPECT_EQ(outcome.code, 2);
    expect_one_error(outcome, parts);
    EXPECT_FALSE(fs::exists(path("out")));
  };
  refused({"--moe_router_score_function=softmax"}, {"--moe_router_score_function", "set it to sigmoid"});
  refused({"--moe_router_topk=2", "--moe_router_score_function=sigmoid"}, {"set it to softmax"});
  refused({"--moe_router_topk=2", "--moe_router_pre_softmax=false"}, {"--moe_router_pre_softmax", "set it to true"});
  refused({"--moe_router_topk_scaling_factor=2"}, {"--moe_router_topk_scaling_factor", "set it to 1"});
  refused({"--moe_router_score_function=sigmoid", "--moe_router_enable_expert_bias=true"},
          {"a bias and sinkhorn both"});
  refused({"--moe_router_force_load_balancing=true"}, {"experts that are drawn are not chosen by sinkhorn"});
  refused({"--router_aux_loss_coef=0.1"}, {"--router_aux_loss_coef", "set it to 0"});
  refused({"--adapter=lora"},
          {"--moe_router_load_balancing_type: sinkhorn weighs experts", "the router is the base's"});
}

}  // namespace
}  // namespace mixtune
