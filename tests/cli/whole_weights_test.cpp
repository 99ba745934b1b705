// Weights that are trained whole beside adapters, through the program: on any layout and through a stop; who reads
// them; what is refused.
#include "adapter_runs.h"

namespace mixtune {
namespace {

class WholeWeights : public AdapterRuns {
 protected:
  // With much of the model trained whole beside the pairs.
  static Args whole(const std::string& out, const Args& more = {"--per_device_train_batch_size=4"}) {
    return lora(out, with({"--modules_to_save=gate", "--modules_to_save=lm_head", "--modules_to_save=embed_tokens",
                           "--modules_to_save=norm"},
                          more));
  }
};

// On any layout, through a stop, from one layout to another; an evaluation and a merge have them; a run begins with
// them.
TEST_F(WholeWeights, LieBesideAdapters) {
  const Args resume = {"--resume_from_checkpoint=auto"};
  std::string first;
  for (const Args& layout : layouts()) {
    const std::string out = fmt::format("out{}", fmt::join(layout, ""));
    expect_part(done(whole(out, layout)).err, "; whole: gate, lm_head, embed_tokens, norm\n");
    const auto checkpoint = snapshot(path(out + "/checkpoint-4"));
    cut(out);
    done(whole(out, with(layout, resume)));
    EXPECT_TRUE(snapshot(path(out + "/checkpoint-4")) == checkpoint) << out;
    if (first.empty()) first = out;
    expect_same_metrics(first, out);
    expect_same_weights(path(first + "/checkpoint-4"), path(out + "/checkpoint-4"));
    fs::copy(path(first), path("again"), fs::copy_options::recursive);
    cut("again");
    done(whole("again", with(layout, resume)));
    expect_same_weights(path(first + "/checkpoint-4"), path("again/checkpoint-4"));
    fs::remove_all(path("again"));
  }
  const auto saved = weights_in(path(first + "/checkpoint-4"));
  const auto base = weights_in(path("model"));
  size_t others = 0;
  for (const char* name : {"lm_head", "model.embed_tokens", "model.norm", "model.layers.0.input_layernorm",
                           "model.layers.0.post_attention_layernorm", "model.layers.0.mlp.gate"}) {
    std::string hub = fmt::format("{}.weight", name);
    if (const size_t at = hub.find("mlp"); at != hub.npos) hub.replace(at, 3, "block_sparse_moe");
    EXPECT_NE(saved.at(fmt::format("base_model.model.{}.weight", name)).values, base.at(hub).values) << name;
    ++others;
  }
  EXPECT_EQ(saved.size(), 20 + others);
  const auto config = nlohmann::json::parse(read(path(first + "/checkpoint-4/adapter_config.json")));
  EXPECT_EQ(config["modules_to_save"], (nlohmann::json{"gate", "lm_head", "embed_tokens", "norm"}));

  const double trained = metrics(first).back()["eval_loss"];
  EXPECT_NEAR(loss_of({first}), trained, 1e-5);
  done({"merge", "model", first, "merged"});
  EXPECT_NEAR(loss_of({"merged"}), trained, 1e-4);
  done(whole("further", {"--per_device_train_batch_size=4", "--adapter_name_or_path=" + first}));
  EXPECT_NEAR(metrics("further")[0]["lm_loss"].get<double>(), trained, 0.5);
  EXPECT_LT(metrics("further")[0]["lm_loss"], metrics(first)[0]["lm_loss"]);
  expect_part(done({"inspect", first}).out, "1 x embed_tokens, 1 x gate, 1 x input_layernorm, 1 x lm_head, 1 x norm");
  expect_refused({"export", first, "served", "--adapter_format=hub"}, {"has lm_head whole", "merge it"});
  expect_refused({"merge", "model", first + ":0.5", "half"}, {"has lm_head whole", "0.5 times"});
}

TEST_F(WholeWeights, ThatCannotBeAreRefused) {
  const auto refused = [&](const Args& more, const Args& parts) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(more, " ")));
    expect_refused(four_steps("new", with({"--adapter=lora", "--lora_r=8"}, more)), parts);
  };
  expect_refused(four_steps("new", {"--modules_to_save=gate"}),
                 {"--modules_to_save: means nothing without an adapter"});
  refused({"--modules_to_save=q_proj"}, {"--modules_to_save: 'q_proj' has pairs, and is not trained whole"});
  refused({"--modules_to_save=lm_haed"}, {"did you mean 'lm_head'?"});
  refused({"--modules_to_save=router"}, {"'router' is not trained whole; name gate, lm_head, embed_tokens"});
  refused({"--modules_to_save=gate", "--freeze=router"},
          {"--freeze: freezes model.layers.0.block_sparse_moe.gate.weight, which modules_to_save trains"});
  done(whole("out"));
  refused({"--adapter_name_or_path=out"}, {"has a whole lm_head, which is not to be trained", "set modules_to_save"});
  done(lora("plain"));
  refused({"--adapter_name_or_path=plain", "--modules_to_save=model.norm"}, {"has no whole model.norm"});
  cut("out");
  expect_refused(lora("out", {"--resume_from_checkpoint=auto"}),
                 {R"(modules_to_save was ["embed_tokens","gate","lm_head","norm"], is null)"});

  std::string config = read(path("model/config.json"));
  const std::string untied = R"("tie_word_embeddings": false)";
  if (const size_t at = config.find(untied); at != config.npos)
    config.replace(at, untied.size(), R"("tie_word_embeddings": true)");
  else
    config.insert(config.find('{') + 1, R"("tie_word_embeddings": true,)");
  write(path("model/config.json"), config);
  for (const char* name : {"lm_head", "embed_tokens"}) {
    refused({fmt::format("--lora_target_modules={}", name)},
            {"--lora_target_modules: the model's embedding and head are one"});
    refused({fmt::format("--modules_to_save={}", name)}, {"embedding and head are one (tie_word_embeddings)"});
  }
}

}  // namespace
}  // namespace mixtune
