// The router's scores through the program: trained, saved in config.json, and read from there by every command.
#include "rank_runs.h"

namespace mixtune {
namespace {

class RouterScoreRuns : public RankRuns {
 protected:
  Outcome trained(const std::string& out, Args more) const {
    more.push_back("--max_steps=2");
    return done(train(out, more));
  }
};

constexpr const char* kWarning = "warning: transformers' Mixtral has no such scores";

TEST_F(RouterScoreRuns, AreSavedAndReadAgain) {
  const Outcome outcome =
      trained("out", {"--moe_router_score_function=sigmoid", "--moe_router_topk_scaling_factor=2.5", "--save_steps=1"});
  expect_part(outcome.err, "router scores: sigmoid, times 2.5; 1 of 2 experts a token\n");
  EXPECT_EQ(count_of(outcome.err, kWarning), 1);
  for (const char* folder : {"out/checkpoint-1", "out/checkpoint-2"}) {
    EXPECT_EQ(config_of(folder)["moe_router_score_function"], "sigmoid");
    EXPECT_EQ(config_of(folder)["moe_router_topk_scaling_factor"], 2.5);
  }
  EXPECT_NEAR(loss_of({"out"}), last_evaluation("out"), 1e-6);
  done({"generate", "out", "--ids=1,5", "--max-new-tokens=2"});
  auto other = config_of("out/checkpoint-2");
  other.erase("moe_router_score_function");
  write(path("out/checkpoint-2/config.json"), other.dump());
  EXPECT_GT(std::abs(loss_of({"out"}) - last_evaluation("out")), 1e-5);
}

TEST_F(RouterScoreRuns, ARunThatGoesOnKeepsThem) {
  const Args sigmoid = {"--moe_router_score_function=sigmoid", "--save_steps=1"};
  trained("out", sigmoid);
  fs::remove_all(path("out/checkpoint-2"));
  const auto resumed = [&](Args more) {
    more.insert(more.end(), {"--max_steps=2", "--save_steps=1", "--resume_from_checkpoint=auto"});
    return run(train("out", more));
  };
  expect_one_error(resumed({"--moe_router_score_function=softmax"}),
                   {"router_scores was sigmoid; 1 of 2 experts a token, is softmax; 1 of 2 experts a token",
                    "--allow_changes router_scores"});
  expect_one_error(resumed({"--moe_router_topk=2"}), {"is sigmoid; 2 of 2 experts a token"});
  const Outcome silent = resumed({});  // the checkpoint says it
  EXPECT_EQ(silent.code, 0) << silent.err;
  expect_part(silent.err, "router scores: sigmoid; 1 of 2 experts a token\n");
  EXPECT_EQ(config_of("out/checkpoint-2")["moe_router_score_function"], "sigmoid");
}

TEST_F(RouterScoreRuns, MoreExpertsATokenAreTheSavedModels) {
  const Outcome outcome = trained("out", {"--moe_router_topk=2"});
  EXPECT_EQ(count_of(outcome.err, kWarning), 0);
  EXPECT_EQ(config_of("out/checkpoint-2")["num_experts_per_tok"], 2);
  EXPECT_FALSE(config_of("out/checkpoint-2").contains("moe_router_score_function"));
  EXPECT_NEAR(loss_of({"out"}), last_evaluation("out"), 1e-6);
  expect_one_error(run(train("other", {"--moe_router_topk=3"})),
                   {"--moe_router_topk: is 3, and the model has 2 experts; set it to 2 or less"});
}

// Weights that are the probabilities: a top-1 router is trained by the tokens' loss.
TEST_F(RouterScoreRuns, PreSoftmaxTrainsATopOneRouter) {
  const auto router_changes = [&](const std::string& out, const Args& more) {
    trained(out, more);
    const Outcome diff = run({"diff", "model", out + "/checkpoint-2", "--json"});
    double change = -1;
    const auto tensors = nlohmann::json::parse(diff.out).at("tensors");
    for (const auto& tensor : tensors)
      if (tensor.at("name").get<std::string>().ends_with("gate.weight")) change = tensor.at("relative").get<double>();
    return change;
  };
  EXPECT_EQ(router_changes("post", {"--router_aux_loss_coef=0"}), 0);
  EXPECT_GT(router_changes("pre", {"--router_aux_loss_coef=0", "--moe_router_pre_softmax=true"}), 0);
}

TEST_F(RouterScoreRuns, UnchangedScoresLeaveTheModelsConfigAlone) {
  trained("out", {});
  EXPECT_EQ(read(path("out/checkpoint-2/config.json")), read(path("model/config.json")));
}

}  // namespace
}  // namespace mixtune
