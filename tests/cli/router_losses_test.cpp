// The router's losses through the program: what is announced, and what the records have of them.
#include "rank_runs.h"

namespace mixtune {
namespace {

class RouterLossRuns : public RankRuns {
 protected:
  // A model of `layers`, beside which the checkpoint's own coefficient is 0.02, and k = 1.
  void make_layers(int layers) const {
    auto config = nlohmann::json::parse(read(path("model/config.json")));
    config["num_hidden_layers"] = layers;
    const TempFolder shape;
    write(shape.path() / "model.json", config.dump());
    done({"init", (shape.path() / "model.json").string(), "deep", "--tokenizer=model"});
    config_k_ = config["num_experts_per_tok"];
  }
  Outcome trained(const std::string& out, const Args& more) const {
    Args args = {"--max_steps=2", "--model_name_or_path=deep"};
    args.insert(args.end(), more.begin(), more.end());
    args = train(out, args);
    args.erase(args.begin() + 1);  // of the model that others train
    return done(args);
  }
  mutable int config_k_ = 0;
};

TEST_F(RouterLossRuns, AreAnnouncedAndRecorded) {
  make_layers(3);
  const Outcome pooled = trained("pooled", {});
  expect_part(pooled.err, "router loss: huggingface, coefficient 0.02 (the checkpoint's own)\n");
  EXPECT_EQ(metrics("pooled")[0]["z_loss"], 0);
  const Outcome each = trained("each", {"--moe_aux_loss_coeff=0.02", "--moe_z_loss_coeff=0.25"});
  expect_part(each.err, "router loss: z, coefficient 0.25 (in each of 3 layers)\n");
  expect_part(each.err, "router loss: aux_loss, coefficient 0.02 (in each of 3 layers)\n");
  expect_part(each.err, "warning: --moe_aux_loss_coeff: 0.02 is the checkpoint's router_aux_loss_coef");
  expect_part(each.err, fmt::format("pulls {:.3g} times as hard", 3.0 / config_k_));
  for (const auto& record : metrics("each")) {
    if (!record.contains("lm_loss")) continue;  // an evaluation's
    const double aux = record["aux_loss"], z = record["z_loss"], lm = record["lm_loss"];
    EXPECT_GT(aux, 2.5);  // 3 in balance
    EXPECT_LT(aux, 6);
    EXPECT_GT(z, 0);
    EXPECT_NEAR(record["loss"].get<double>(), lm + 0.02 * aux + 0.25 * z, 1e-9);
  }
  const Outcome other = trained("other", {"--moe_aux_loss_coeff=0.01"});
  EXPECT_EQ(count_of(other.err, "is the checkpoint's router_aux_loss_coef"), 0);
  expect_part(read(path("other/config.resolved.yaml")), "router_aux_loss_coef: 0\n");
  expect_part(read(path("other/config.resolved.yaml")), "moe_aux_loss_coeff: [\"0.01\"]\n");
}

}  // namespace
}  // namespace mixtune
