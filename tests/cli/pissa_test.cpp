// lora_init: pissa through the program: what begins, what is saved and goes on, and what is refused.
#include "adapter_runs.h"

namespace mixtune {
namespace {

class Pissa : public AdapterRuns {
 protected:
  static Args pissa(const std::string& out, const Args& more = {"--per_device_train_batch_size=4"}) {
    return lora(out, with({"--lora_init=pissa"}, more));
  }
};

// The pairs that are saved are added to the base as it was: the base that is trained with, less them, does not show.
TEST_F(Pissa, SavesWhatItTrainedForTheBaseAsItWas) {
  done(pissa("out"));
  const auto config = nlohmann::json::parse(read(path("out/checkpoint-4/adapter_config.json")));
  EXPECT_EQ(config["r"], 16);
  EXPECT_EQ(config["lora_alpha"], 64);
  EXPECT_EQ(config["init_lora_weights"], true);
  EXPECT_EQ(weights_in(path("out/checkpoint-4")).size(), 20u);
  const double trained = last_evaluation("out");
  EXPECT_NEAR(loss_of({"out"}), trained, 1e-4);
  done({"merge", "model", "out", "merged", "--dtype=fp32"});
  EXPECT_NEAR(loss_of({"merged"}), trained, 1e-4);
  EXPECT_GT(std::abs(loss_of({"model"}) - trained), 1e-3);
}

// W - s B A + s B A: the base's loss, but for rounding. A has a gradient from the first step on.
TEST_F(Pissa, BeginsAsTheBase) {
  done(pissa("out"));
  done(lora("default"));
  const auto first = metrics("out")[0], other = metrics("default")[0];
  EXPECT_NEAR(first["loss"].get<double>(), other["loss"].get<double>(), 1e-5);
  EXPECT_GT(std::abs(first["grad_norm"].get<double>() / other["grad_norm"].get<double>() - 1), 0.01);
  EXPECT_GT(std::abs(metrics("out")[3]["loss"].get<double>() - metrics("default")[3]["loss"].get<double>()), 1e-5);
}

// A pair whose A is frozen trains its B alone, from where it began.
TEST_F(Pissa, BesideWhatIsFrozen) {
  for (const char* frozen : {"*lora_A*", "*lora_B*", "attention"}) {
    const std::string out = std::string("out ") + frozen;
    done(pissa(out, {"--per_device_train_batch_size=4", std::string("--freeze=") + frozen}));
    EXPECT_GT(metrics(out)[0]["grad_norm"].get<double>(), 0);
    EXPECT_NEAR(loss_of({out}), last_evaluation(out), 1e-4);
    for (const auto& [name, tensor] : weights_in(path(out + "/checkpoint-4")))
      EXPECT_NE(std::ranges::count(tensor.values, 0.F), std::ssize(tensor.values)) << name;
  }
}

// Behind A lies what it began as, and beside B the same with another sign: they stay through a run.
TEST_F(Pissa, KeepsWhatPairsBeganAs) {
  done(pissa("out"));
  const auto early = weights_in(path("out/checkpoint-2")), late = weights_in(path("out/checkpoint-4"));
  int changed = 0;
  for (const auto& [name, tensor] : late) {
    const std::vector<float>&was = early.at(name).values, &is = tensor.values;
    const bool is_a = name.find("lora_A") != name.npos;
    for (size_t i = 0; i < is.size(); ++i) {
      const bool initial = is_a ? i >= is.size() / 2 : i % 16 >= 8;
      if (initial) {
        ASSERT_EQ(is[i], was[i]) << name;
      }
      changed += !initial && is[i] != was[i];
    }
  }
  EXPECT_GT(changed, 1000);
}

TEST_F(Pissa, IsTheSameOnAnyLayoutAndThroughAStop) {
  std::string first;
  for (const Args& layout : layouts()) {
    const std::string out = fmt::format("out{}", fmt::join(layout, "")), folder = out + "/checkpoint-4/";
    done(pissa(out, layout));
    expect_part(done({"inspect", out, "--verify"}).out, ": all as written\n");
    if (first.empty()) first = out;
    EXPECT_EQ(header(folder + kAdapterFile), header(first + "/checkpoint-4/" + kAdapterFile));
    expect_same_metrics(first, out);
    expect_same_weights(path(first + "/checkpoint-4"), path(folder));
    const auto whole = snapshot(path(out + "/checkpoint-4"));
    cut(out);
    done(pissa(out, with(layout, {"--resume_from_checkpoint=auto"})));
    EXPECT_TRUE(snapshot(path(out + "/checkpoint-4")) == whole) << out;
  }
}

TEST_F(Pissa, AnyLayoutGoesOnFromAnyOther) {
  const Args alone = layouts().front(), other = layouts().back();
  done(pissa("whole", alone));
  for (const auto& [wrote, goes_on] : {std::pair(alone, other), std::pair(other, alone)}) {
    done(pissa("out", wrote));
    cut("out");
    done(pissa("out", with(goes_on, {"--resume_from_checkpoint=auto"})));
    expect_same_weights(path("whole/checkpoint-4"), path("out/checkpoint-4"));
    fs::remove_all(path("out"));
  }
}

TEST_F(Pissa, WhatCannotBeSavedHonestlyIsRefused) {
  done(lora("adapter"));
  expect_refused(qlora("new", {"--lora_init=pissa"}),
                 {"--lora_init: pissa takes a pair off each weight", "a few bits"});
  expect_refused(pissa("new", {"--base_precision=nf4"}),
                 {"--lora_init: pissa takes a pair off each weight", "a few bits"});
  expect_refused(pissa("new", {"--adapter_name_or_path=adapter"}),
                 {"--lora_init: pissa begins with the weights", "remove one of them"});
  expect_refused(four_steps("new", {"--adapter=lora", "--lora_init=pissa", "--lora_r=4096"}),
                 {"--lora_r: is 4096, and pissa finds ", "lora_init: default"});
  expect_refused(pissa("new", {"--lora_target_modules=embed_tokens"}),
                 {"--lora_init: pissa is of the projections of attention and of experts alone"});
  expect_refused(pissa("new", {"--lora_target_modules=all-linear"}),
                 {"--lora_init: pissa is of the projections of attention and of experts alone", "lora_init: default"});
  expect_refused(lora("new", {"--lora_init=olora"}), {"--lora_init", "default, pissa"});
}

TEST_F(Pissa, IsOfTheRunsContract) {
  done(pissa("out"));
  cut("out");
  expect_refused(lora("out", {"--per_device_train_batch_size=4", "--resume_from_checkpoint=auto"}),
                 {R"(lora_init was "pissa", is "default"; put back what it was)"});
}

}  // namespace
}  // namespace mixtune
