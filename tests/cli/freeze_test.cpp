// `freeze` through the program: what is frozen keeps its bits, on any layout, through a stop, and is announced.
#include "rank_runs.h"
#include "stored_weights.h"

namespace mixtune {
namespace {

class Freezing : public RankRuns {
 protected:
  // Four steps, saved after the second.
  static Args four_steps(const std::string& out, const Args& more) {
    Args args = {"--max_steps=4", "--save_steps=2", "--weight_decay=0.1", "--packing"};
    args.insert(args.end(), more.begin(), more.end());
    if (on_gpus()) args.push_back("--deterministic");
    return train(out, args);
  }
  static Args four_steps_of(const std::string& model, const std::string& out, const Args& more) {
    Args args = four_steps(out, more);
    args.at(1) = "--model_name_or_path=" + model;
    return args;
  }

  // Those that this machine has: a rank has a GPU to itself.
  static std::vector<Args> layouts() {
    const Args alone = {"--per_device_train_batch_size=4"}, two = {"--nproc=2", "--per_device_train_batch_size=2"};
    const auto with = [&](const char* more) {
      Args args = two;
      args.push_back(more);
      return args;
    };
    if (!on_gpus()) return {alone, two, with("--zero_stage=0"), with("--expert_model_parallel_size=2")};
    return promised_gpus() > 1 ? std::vector<Args>{alone, with("--expert_model_parallel_size=2")}
                               : std::vector<Args>{alone};
  }

  static bool has(const std::string& text, const char* part) { return text.find(part) != text.npos; }

  void tie_head() const {
    auto config = nlohmann::json::parse(read(path("model/config.json")));
    config["tie_word_embeddings"] = true;
    const TempFolder shape;
    write(shape.path() / "model.json", config.dump());
    done({"init", (shape.path() / "model.json").string(), "tied", "--tokenizer=model"});
  }
};

TEST_F(Freezing, KeepsTheBasesBitsOnAnyLayout) {
  const auto base = weights_in(path("model"));
  std::string first;
  for (const Args& layout : layouts()) {
    const std::string out = fmt::format("out{}", fmt::join(layout, ""));
    Args args = {"--freeze=*.w2.weight", "--freeze=router", "--freeze=embeddings", "--lr_groups={router: 1e-2}"};
    args.insert(args.end(), layout.begin(), layout.end());
    const Outcome outcome = done(four_steps(out, args));
    expect_part(outcome.err, "trained: 67376 of 133456 parameters (50.5%); frozen: *.w2.weight, router, embeddings\n");
    expect_part(outcome.err, "--lr_groups: router: no effect, as all its weights are frozen\n");
    EXPECT_EQ(count_of(outcome.err, "no effect"), 1);
    for (const auto& [name, stored] : weights_in(path(out + "/checkpoint-4"))) {
      const bool frozen = has(name, ".w2.") || has(name, ".gate.") || has(name, "embed_tokens");
      EXPECT_EQ(stored.values == base.at(name).values, frozen) << out << ": " << name;
    }
    if (first.empty()) first = out;
    expect_same_metrics(first, out);
    expect_same_weights(path(first + "/checkpoint-4"), path(out + "/checkpoint-4"));
  }
}

// The first step's loss is that of a run without; its gradient norm has no part of what is frozen.
TEST_F(Freezing, LeavesTheLossAndTheNormOfTheOthers) {
  done(four_steps("full", {"--per_device_train_batch_size=4"}));
  done(four_steps("part", {"--per_device_train_batch_size=4", "--freeze=lm_head"}));
  const auto full = metrics("full")[0], part = metrics("part")[0];
  EXPECT_EQ(full["loss"], part["loss"]);
  EXPECT_LT(part["grad_norm"].get<double>(), 0.999 * full["grad_norm"].get<double>());
}

// Also of a model in bf16: the bytes are the base's.
TEST_F(Freezing, KeepsTheBytesOfANarrowModel) {
  done({"export", "model", "narrow", "--dtype=bf16"});
  done(four_steps_of("narrow", "out", {"--freeze=layers.0"}));
  const Outcome outcome = run({"diff", "narrow", "out/checkpoint-4", "--json"});
  const auto tensors = nlohmann::json::parse(outcome.out)["tensors"];
  EXPECT_EQ(tensors.size(), 16u);
  for (const auto& tensor : tensors)
    EXPECT_EQ(tensor["differing"] == 0, has(tensor["name"], "model.layers.0.")) << tensor;
}

TEST_F(Freezing, GoesOnInTheSameBits) {
  for (const Args& layout : layouts()) {
    const std::string out = fmt::format("out{}", fmt::join(layout, ""));
    Args args = layout;
    args.insert(args.end(), {"--freeze=experts", "--freeze=norms"});
    done(four_steps(out, args));
    const auto whole = snapshot(path(out + "/checkpoint-4"));
    for (const auto& [file, content] : whole) EXPECT_FALSE(has(content, "experts.0.w1.weight.exp_avg")) << file;
    fs::remove_all(path(out + "/checkpoint-4"));
    write(path(out + "/latest"), "checkpoint-2\n");
    args.push_back("--resume_from_checkpoint=auto");
    done(four_steps(out, args));
    EXPECT_TRUE(snapshot(path(out + "/checkpoint-4")) == whole) << out;
  }
}

TEST_F(Freezing, IsOfTheRunsContract) {
  done(four_steps("out", {"--freeze=experts", "--freeze=norms"}));
  fs::remove_all(path("out/checkpoint-4"));
  const auto before = snapshot(path("out"));
  const Outcome outcome = run(four_steps("out", {"--resume_from_checkpoint=auto", "--freeze=experts"}));
  EXPECT_EQ(outcome.code, 2);
  expect_one_error(outcome, {R"(freeze was ["experts","norms"], is ["experts"]; put back what it was)"});
  EXPECT_EQ(snapshot(path("out")), before);
  done(four_steps("out", {"--resume_from_checkpoint=auto", "--freeze=norms", "--freeze=experts"}));
}

TEST_F(Freezing, WhatNamesNothingIsRefusedBeforeAnythingElse) {
  for (const char* how : {"--dry-run", "--logging_steps=2"}) {
    const auto refused = [&](const std::string& entry, const std::string& part) {
      const Outcome outcome = run(four_steps("out", {"--freeze=" + entry, how}));
      EXPECT_EQ(outcome.code, 2) << entry;
      expect_one_error(outcome, {"--freeze: ", part});
      EXPECT_FALSE(fs::exists(path("out")));
    };
    refused("rooter", "'rooter' names no weights; did you mean 'router'?");
    refused("*.k_proj.weight", "are one parameter here");
    refused("*", "nothing is left to train");
    refused("layers.1", "whose layers are 0 to 0");
  }
}

TEST_F(Freezing, IsCountedByWhoPlans) {
  expect_part(done(four_steps("out", {"--freeze=experts", "--dry-run"})).out,
              "# trained: 131920 of 133456 parameters (98.8%); frozen: experts\n");
  const Args estimate = {"estimate", "--model_name_or_path=model", "--precision=bf16", "--gpu-memory=10GiB"};
  Args frozen = estimate;
  frozen.push_back("--freeze=experts");
  expect_part(done(frozen).out, "trained: 131920 of 133456 parameters (98.8%); frozen: experts\n");
  EXPECT_EQ(count_of(done(estimate).out, "trained:"), 0);
  frozen.back() = "--freeze=expert";
  expect_one_error(run(frozen), {"--freeze: 'expert' names no weights"});
}

TEST_F(Freezing, ATiedHeadGoesWithTheEmbeddings) {
  tie_head();
  expect_part(done(four_steps_of("tied", "out", {"--freeze=embeddings"})).err,
              "frozen: embeddings; with the embeddings the head, which is the same (tie_word_embeddings)\n");
  EXPECT_EQ(weights_in(path("out/checkpoint-4")).at("model.embed_tokens.weight").values,
            weights_in(path("tied")).at("model.embed_tokens.weight").values);
  const Outcome outcome = run(four_steps_of("tied", "other", {"--freeze=lm_head"}));
  expect_one_error(outcome, {"'lm_head' names no weights: the head has none of its own"});
}

}  // namespace
}  // namespace mixtune
