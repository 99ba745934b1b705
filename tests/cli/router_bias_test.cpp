// The router's expert bias, and what is drawn for routers, through the program.
#include "rank_runs.h"
#include "stored_weights.h"

namespace mixtune {
namespace {

const Args kSigmoid = {"--moe_router_score_function=sigmoid", "--moe_router_enable_expert_bias=true"};

class RouterBiasRuns : public RankRuns {
 protected:
  // Steps that are all saved; a rate of 1 is above all scores.
  Args biased(const std::string& out, int steps, const Args& more = {}, const char* rate = "1") const {
    Args args = {fmt::format("--max_steps={}", steps), "--save_steps=1", "--router_aux_loss_coef=0",
                 std::string("--moe_router_bias_update_rate=") + rate};
    args.insert(args.end(), kSigmoid.begin(), kSigmoid.end());
    args.insert(args.end(), more.begin(), more.end());
    if (on_gpus()) args.push_back("--deterministic");
    return train(out, args);
  }
  nlohmann::json bias_of(const std::string& folder) const { return config_of(folder).at("moe_router_expert_bias"); }
};

TEST_F(RouterBiasRuns, IsMovedSavedAndReadAgain) {
  const Outcome outcome = done(biased("out", 2));
  expect_part(outcome.err, "router scores: sigmoid with an expert bias; 1 of 2 experts a token\n");
  EXPECT_EQ(count_of(outcome.err, "warning: transformers' Mixtral has no such scores"), 1);
  const auto first = metrics("out")[0];
  const nlohmann::json bias = bias_of("out/checkpoint-1");
  ASSERT_EQ(bias.size(), first["layer_expert_tokens"].size());
  for (size_t layer = 0; layer < bias.size(); ++layer) {
    const nlohmann::json tokens = first["layer_expert_tokens"][layer];
    const double ahead = tokens[0] > tokens[1] ? 1 : tokens[0] < tokens[1] ? -1 : 0;
    EXPECT_EQ(bias[layer], nlohmann::json({-ahead, ahead})) << "layer " << layer;
    EXPECT_EQ(first["layer_expert_bias_range"][layer], 0);
  }
  EXPECT_NEAR(loss_of({"out"}), last_evaluation("out"), 1e-6);
  done({"generate", "out", "--ids=1,5", "--max-new-tokens=2"});
  expect_part(done({"inspect", "out/checkpoint-2"}).out,
              "router       sigmoid with an expert bias: transformers' Mixtral has no such scores");
  expect_part(
      done({"export", "out/checkpoint-2", "plain"}).err,
      "warning: out/checkpoint-2: router scores: sigmoid with an expert bias; transformers' Mixtral has no such");
  EXPECT_EQ(bias_of("plain"), bias_of("out/checkpoint-2"));
  auto other = config_of("out/checkpoint-1");
  const double with = loss_of({"out/checkpoint-1"});
  for (auto& layer : other["moe_router_expert_bias"]) std::swap(layer[0], layer[1]);
  write(path("out/checkpoint-1/config.json"), other.dump());
  EXPECT_GT(std::abs(loss_of({"out/checkpoint-1"}) - with), 1e-5);
}

TEST_F(RouterBiasRuns, ARunThatGoesOnHasTheSameBits) {
  done(biased("whole", 4, {"--moe_input_jitter_eps=0.1"}));
  done(biased("cut", 4, {"--moe_input_jitter_eps=0.1"}));
  for (const char* later : {"cut/checkpoint-3", "cut/checkpoint-4"}) fs::remove_all(path(later));
  write(path("cut/latest"), "checkpoint-2\n");
  const Args goes_on = {"--moe_input_jitter_eps=0.1", "--resume_from_checkpoint=auto"};
  expect_one_error(run(biased("cut", 4, goes_on, "0.5")), {"moe_router_bias_update_rate was 1, is 0.5"});
  expect_one_error(run(train("cut", {"--max_steps=4", "--save_steps=1", "--router_aux_loss_coef=0",
                                     "--moe_router_bias_update_rate=1", "--moe_input_jitter_eps=0.1",
                                     "--moe_router_enable_expert_bias=false", "--resume_from_checkpoint=auto"})),
                   {"router_scores was sigmoid with an expert bias; 1 of 2 experts a token, is sigmoid; 1 of 2"});
  const Outcome outcome = run(biased("cut", 4, goes_on));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  for (const char* file : {"config.json", "model.safetensors"})
    EXPECT_TRUE(read(path(std::string("cut/checkpoint-4/") + file)) ==
                read(path(std::string("whole/checkpoint-4/") + file)))
        << file;
  expect_same_metrics("whole", "cut");
}

TEST_F(RouterBiasRuns, IsTheSameOnTwoRanks) {
  if (on_gpus() && promised_gpus() < 2) GTEST_SKIP();
  done(biased("one", 3, {"--per_device_train_batch_size=4"}, "0.01"));
  for (const char* ep : {"1", "2"}) {
    const std::string out = std::string("two-") + ep;
    done(biased(out, 3,
                {"--nproc=2", "--per_device_train_batch_size=2", std::string("--expert_model_parallel_size=") + ep},
                "0.01"));
    EXPECT_EQ(bias_of(out + "/checkpoint-3"), bias_of("one/checkpoint-3"));
    expect_same_metrics("one", out);
  }
}

TEST_F(RouterBiasRuns, IsTakenAwayWhereARunSaysSo) {
  done(biased("out", 1));
  fs::rename(path("model"), path("old"));
  fs::copy(path("out/checkpoint-1"), path("model"), fs::copy_options::recursive);
  done(train("without", {"--max_steps=1", "--moe_router_enable_expert_bias=false"}));
  EXPECT_EQ(bias_of("without/checkpoint-1"), nullptr);
  EXPECT_NEAR(loss_of({"without"}), last_evaluation("without"), 1e-6);
}

TEST_F(RouterBiasRuns, WhatMakesNoSenseIsRefused) {
  expect_one_error(run(train("out", {"--moe_router_enable_expert_bias=true"})),
                   {"--moe_router_enable_expert_bias: a bias is of sigmoids, and the scores are softmax",
                    "moe_router_score_function to sigmoid"});
  expect_one_error(run(biased("out", 1, {"--moe_router_force_load_balancing=true"})),
                   {"--moe_router_force_load_balancing: a bias would be moved by experts that are drawn"});
  EXPECT_FALSE(fs::exists(path("out")));
  const Outcome outcome = done(train("out", {"--max_steps=1", "--moe_router_bias_update_rate=0.1"}));
  expect_part(outcome.err, "warning: --moe_router_bias_update_rate: no effect, as experts have no bias");
}

TEST_F(RouterBiasRuns, DrawnExpertsAreEvenInTrainingAlone) {
  const Outcome outcome =
      done(train("out", {"--max_steps=1", "--moe_router_force_load_balancing=true", "--eval_on_start=true"}));
  expect_part(outcome.err,
              "warning: --moe_router_force_load_balancing: in training tokens go to experts that are drawn");
  done(train("plain", {"--max_steps=1", "--eval_on_start=true"}));
  const auto drawn = metrics("out"), plain = metrics("plain");
  EXPECT_EQ(drawn[0]["eval_loss"], plain[0]["eval_loss"]);
  EXPECT_NE(drawn[1]["lm_loss"], plain[1]["lm_loss"]);
  for (const auto& tokens : drawn[1]["layer_expert_tokens"]) {
    const auto a = tokens[0].get<double>(), b = tokens[1].get<double>();
    EXPECT_LT(std::abs(a - b), 5 * std::sqrt(a + b));
  }
}

}  // namespace
}  // namespace mixtune
