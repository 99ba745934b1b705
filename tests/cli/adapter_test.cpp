// LoRA adapters through the program: what a run writes, on any layout and through a stop; who reads it; what is
// refused.
#include "adapter_runs.h"

namespace mixtune {
namespace {

class Adapters : public AdapterRuns {};

TEST_F(Adapters, ACheckpointIsAnAdapter) {
  const Outcome outcome = done(lora("out"));
  expect_part(outcome.err, "adapters of q_proj, k_proj, v_proj, o_proj, w1, w2, w3 of rank 8, scaling 4\n");
  for (const int step : {2, 4}) {
    const std::string folder = fmt::format("out/checkpoint-{}/", step);
    EXPECT_FALSE(fs::exists(path(folder + "config.json")));
    std::vector<std::string> weights;
    for (const auto& entry : fs::directory_iterator(path(folder)))
      if (entry.path().extension() == ".safetensors") weights.push_back(entry.path().filename());
    EXPECT_EQ(weights, Args{kAdapterFile});
    const auto config = nlohmann::json::parse(read(path(folder + "adapter_config.json")));
    EXPECT_EQ(config["peft_type"], "LORA");
    EXPECT_EQ(config["base_model_name_or_path"], "model");
    EXPECT_EQ(config["r"], 8);
    EXPECT_EQ(config["lora_alpha"], 32);
  }
  const auto pairs = weights_in(path("out/checkpoint-4"));
  EXPECT_EQ(pairs.size(), 20u);  // 4 of attention, 3 of each of 2 experts; A and B
  for (const char* name : {"self_attn.q_proj", "self_attn.o_proj", "block_sparse_moe.experts.1.w3"})
    for (const char* factor : {"A", "B"}) {
      const std::string tensor = fmt::format("base_model.model.model.layers.0.{}.lora_{}.weight", name, factor);
      EXPECT_TRUE(pairs.contains(tensor)) << tensor;
    }
  expect_part(done({"inspect", "out"}).out, "LoRA, rank 8, alpha 32\n");
}

TEST_F(Adapters, NamesItsModulesAndScaling) {
  done(lora("out", {"--lora_target_modules=v_proj", "--lora_target_modules=q_proj", "--use_rslora", "--lora_alpha=6",
                    "--per_device_train_batch_size=4"}));
  const auto config = nlohmann::json::parse(read(path("out/checkpoint-4/adapter_config.json")));
  EXPECT_EQ(config["target_modules"], (nlohmann::json{"q_proj", "v_proj"}));
  EXPECT_EQ(config["use_rslora"], false);  // folded
  EXPECT_NEAR(config["lora_alpha"].get<double>(), 6 * std::sqrt(8.0), 1e-12);
  EXPECT_EQ(weights_in(path("out/checkpoint-4")).size(), 4u);
}

// As PEFT's all-linear: with the gate, unless it is trained whole, and without the embedding and the head.
TEST_F(Adapters, AllLinearHasTheGate) {
  const Args all = {"--lora_target_modules=all-linear", "--per_device_train_batch_size=4"};
  const std::string gate = "base_model.model.model.layers.0.block_sparse_moe.gate.lora_B.weight";
  done(lora("out", all));
  const auto pairs = weights_in(path("out/checkpoint-4"));
  EXPECT_EQ(pairs.size(), 22u);
  EXPECT_TRUE(std::ranges::any_of(pairs.at(gate).values, [](float x) { return x != 0; }));
  EXPECT_NEAR(loss_of({"out"}), metrics("out").back()["eval_loss"].get<double>(), 1e-5);
  done(lora("whole", with(all, {"--modules_to_save=gate"})));
  const auto beside = weights_in(path("whole/checkpoint-4"));
  EXPECT_EQ(beside.size(), 21u);
  EXPECT_FALSE(beside.contains(gate));
}

// On any layout, through a stop and from one layout to another; beside its base, merged, and written anew. Its factors
// are named, and lie, as PEFT's.
TEST_F(Adapters, MayBeOfTheEmbedding) {
  const Args targets = {"--lora_target_modules=v_proj", "--lora_target_modules=embed_tokens"},
             resume = {"--resume_from_checkpoint=auto"};
  std::string first;
  for (const Args& layout : layouts()) {
    const std::string out = fmt::format("out{}", fmt::join(layout, ""));
    done(lora(out, with(targets, layout)));
    const auto checkpoint = snapshot(path(out + "/checkpoint-4"));
    cut(out);
    done(lora(out, with(with(targets, layout), resume)));
    EXPECT_TRUE(snapshot(path(out + "/checkpoint-4")) == checkpoint) << out;
    if (first.empty()) first = out;
    EXPECT_EQ(header(out + "/checkpoint-4/" + kAdapterFile), header(first + "/checkpoint-4/" + kAdapterFile));
    expect_same_metrics(first, out);
    expect_same_weights(path(first + "/checkpoint-4"), path(out + "/checkpoint-4"));
    fs::copy(path(first), path("again"), fs::copy_options::recursive);
    cut("again");
    done(lora("again", with(with(targets, layout), resume)));
    expect_same_weights(path(first + "/checkpoint-4"), path("again/checkpoint-4"));
    fs::remove_all(path("again"));
  }
  const auto tensors = nlohmann::json::parse(header(first + "/checkpoint-4/" + kAdapterFile));
  const std::string start = "base_model.model.model.embed_tokens.lora_embedding_";
  const nlohmann::json base = nlohmann::json::parse(read(path("model/config.json")));
  EXPECT_EQ(tensors[start + "A"]["shape"], (nlohmann::json{8, base["vocab_size"]}));
  EXPECT_EQ(tensors[start + "B"]["shape"], (nlohmann::json{base["hidden_size"], 8}));

  const double trained = metrics(first).back()["eval_loss"];
  EXPECT_NEAR(loss_of({first}), trained, 1e-5);
  done({"merge", "model", first, "merged"});
  EXPECT_NEAR(loss_of({"merged"}), trained, 1e-4);
  const std::vector<float> beside = logits_of({first}), merged = logits_of({"merged"});
  ASSERT_EQ(beside.size(), merged.size());
  for (size_t i = 0; i < beside.size(); ++i) ASSERT_NEAR(beside[i], merged[i], 1e-4);
  expect_part(done({"inspect", first}).out, "1 x embed_tokens, 1 x v_proj");
  done({"export", first, "served", "--adapter_format=sglang"});
  const auto saved = weights_in(path(first + "/checkpoint-4")), served = weights_in(path("served"));
  EXPECT_EQ(served.size(), saved.size());
  for (const auto& [name, tensor] : saved) EXPECT_EQ(served.at(name).values, tensor.values) << name;
  done(lora("further", with(targets, {"--per_device_train_batch_size=4", "--adapter_name_or_path=served"})));
  EXPECT_LT(metrics("further")[0]["lm_loss"], metrics(first)[0]["lm_loss"]);
}

TEST_F(Adapters, BeginAsTheBase) {
  done(lora("out", {"--lora_target_modules=all-linear", "--lora_target_modules=lm_head",
                    "--lora_target_modules=embed_tokens", "--per_device_train_batch_size=4"}));
  done(four_steps("full", {"--per_device_train_batch_size=4"}));
  EXPECT_EQ(metrics("out")[0]["lm_loss"], metrics("full")[0]["lm_loss"]);
  EXPECT_EQ(metrics("out")[0]["loss"], metrics("full")[0]["loss"]);
  EXPECT_NE(metrics("out")[1]["loss"], metrics("full")[1]["loss"]);
}

TEST_F(Adapters, AreOneFileOnAnyLayout) {
  std::string first;
  for (const Args& layout : layouts()) {
    const std::string out = fmt::format("out{}", fmt::join(layout, "")), folder = out + "/checkpoint-4/";
    done(lora(out, layout));
    for (const auto& entry : fs::directory_iterator(path(folder))) {
      const std::string name = entry.path().filename();
      EXPECT_FALSE(name.ends_with(".safetensors") && name != kAdapterFile) << name;
    }
    expect_part(done({"inspect", out, "--verify"}).out, ": all as written\n");
    if (first.empty()) first = out;
    EXPECT_EQ(header(folder + kAdapterFile), header(first + "/checkpoint-4/" + kAdapterFile));
    expect_same_metrics(first, out);
    expect_same_weights(path(first + "/checkpoint-4"), path(folder));
  }
  // Servers look for no other.
  done(lora("shards", with(layouts()[0], {"--max_shard_size=4KB"})));
  EXPECT_TRUE(read(path("shards/checkpoint-4/" + kAdapterFile)) == read(path(first + "/checkpoint-4/" + kAdapterFile)));
}

TEST_F(Adapters, GoOnInTheSameBits) {
  for (const Args& layout : layouts()) {
    const std::string out = fmt::format("out{}", fmt::join(layout, ""));
    done(lora(out, layout));
    const auto whole = snapshot(path(out + "/checkpoint-4"));
    cut(out);
    const Outcome outcome = done(lora(out, with(layout, {"--resume_from_checkpoint=auto"})));
    expect_part(outcome.err, "checkpoint-2: the run goes on after step 2");
    EXPECT_TRUE(snapshot(path(out + "/checkpoint-4")) == whole) << out;
  }
}

// By tokens' places in the global batch, whichever rank has them, before a stop and after; in training alone.
TEST_F(Adapters, DropOutTheSameOnAnyLayoutAndThroughAStop) {
  const Args drops = {"--lora_dropout=0.2", "--lora_target_modules=all-linear", "--lora_target_modules=lm_head"};
  const auto dropping = [&](const std::string& out, const Args& layout, const Args& more = {}) {
    return lora(out, with(with(drops, layout), more));
  };
  std::string first;
  for (const Args& layout : layouts()) {
    const std::string out = fmt::format("out{}", fmt::join(layout, ""));
    done(dropping(out, layout));
    const auto whole = snapshot(path(out + "/checkpoint-4"));
    cut(out);
    done(dropping(out, layout, {"--resume_from_checkpoint=auto"}));
    EXPECT_TRUE(snapshot(path(out + "/checkpoint-4")) == whole) << out;
    if (first.empty()) first = out;
    expect_same_metrics(first, out);
    expect_same_weights(path(first + "/checkpoint-4"), path(out + "/checkpoint-4"));
  }
  EXPECT_NEAR(metrics(first).back()["eval_loss"].get<double>(), loss_of({first}), 1e-5);
  const auto config = nlohmann::json::parse(read(path(first + "/checkpoint-4/adapter_config.json")));
  EXPECT_EQ(config["lora_dropout"], 0);  // which is what servers and PEFT compute with
  done(lora("all",
            {"--lora_target_modules=all-linear", "--lora_target_modules=lm_head", "--per_device_train_batch_size=4"}));
  EXPECT_EQ(metrics("all")[0]["loss"], metrics(first)[0]["loss"]);  // B is 0
  EXPECT_NE(metrics("all")[0]["grad_norm"], metrics(first)[0]["grad_norm"]);
}

// The resolved configuration names every key, those too that adapters refuse with another value.
TEST_F(Adapters, GoOnWithTheConfigurationThatARunWrote) {
  done(lora("out"));
  cut("out");
  const Outcome outcome = run({"train", "out/config.resolved.yaml", "--resume_from_checkpoint=auto"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(fs::exists(path("out/checkpoint-4/" + kAdapterFile)));
}

TEST_F(Adapters, AnyLayoutGoesOnFromAnyOther) {
  done(lora("whole"));
  for (const Args& wrote : layouts())
    for (const Args& goes_on : layouts()) {
      if (wrote == goes_on) continue;
      SCOPED_TRACE(fmt::format("{} after {}", fmt::join(goes_on, " "), fmt::join(wrote, " ")));
      done(lora("out", wrote));
      cut("out");
      done(lora("out", with(goes_on, {"--resume_from_checkpoint=auto"})));
      expect_same_weights(path("whole/checkpoint-4"), path("out/checkpoint-4"));
      fs::remove_all(path("out"));
    }
}

TEST_F(Adapters, AFlippedByteIsFoundOnResume) {
  for (const Args& layout : layouts()) {
    done(lora("out", layout));
    cut("out");
    const Args again = lora("out", with(layout, {"--resume_from_checkpoint=auto"}));
    flip_last_byte("out/checkpoint-2/" + kAdapterFile);
    expect_refused(again, {"out/checkpoint-2/" + kAdapterFile + ": ", "bytes are not those that were written (XXH3 ",
                           "; resume from another checkpoint"});
    expect_part(run({"inspect", "out", "--verify"}).err, kAdapterFile + ": tensor ");
    flip_last_byte("out/checkpoint-2/" + kAdapterFile);
    for (const char* moment : {"exp_avg", "exp_avg_sq"}) {
      const std::string tensor = "base_model.model.model.layers.0.block_sparse_moe.experts.1.w2.lora_B.weight";
      const StoredPlace place = find_entry(path("out/checkpoint-2"), fmt::format("{}.{}", tensor, moment));
      const std::string sound = read(place.file);
      std::string flipped = sound;
      flipped.at(place.last) = static_cast<char>(flipped.at(place.last) ^ 1);
      write(place.file, flipped);
      expect_refused(again, {place.entry + ": its bytes are not those that were written (XXH3 "});
      write(place.file, sound);
    }
    done(again);
    fs::remove_all(path("out"));
  }
}

TEST_F(Adapters, ComputeWhatTheMergedModelComputes) {
  done(lora("out", {"--per_device_train_batch_size=4", "--lora_alpha=256"}));
  done({"merge", "model", "out", "merged", "--dtype=fp32"});
  const double merged = loss_of({"merged"}), base = loss_of({"model"});
  EXPECT_GT(std::abs(base - merged), 0.01);
  EXPECT_NEAR(loss_of({"out"}), merged, 1e-4);
  EXPECT_NEAR(metrics("out").back()["eval_loss"].get<double>(), merged, 1e-4);
  EXPECT_EQ(loss_of({"out/checkpoint-4", "--base=model"}), loss_of({"out"}));

  const std::vector<float> logits = logits_of({"out"}), expected = logits_of({"merged"});
  ASSERT_EQ(logits.size(), expected.size());
  for (size_t i = 0; i < logits.size(); ++i) ASSERT_NEAR(logits[i], expected[i], 1e-4);
  EXPECT_EQ(logits_of({"out", "--base=model"}), logits);
}

TEST_F(Adapters, AreExportedByTheNamesOfOthers) {
  done(lora("out"));
  expect_part(done({"export", "out", "sglang", "--adapter_format=sglang"}).out, "rank 8, alpha 32");
  const std::string names = header("sglang/" + kAdapterFile);
  expect_part(names, "experts.0.gate_proj.lora_A.weight");
  EXPECT_EQ(names.find(".w1."), names.npos);
  EXPECT_EQ(loss_of({"sglang"}), loss_of({"out"}));
  done({"export", "sglang", "back", "--adapter_format=hub"});
  expect_same_weights(path("out/checkpoint-4"), path("back"));

  expect_refused({"export", "out", "sglang", "--adapter_format=sglang"}, {"sglang"});
  expect_refused({"export", "out", "out/checkpoint-4/inner", "--adapter_format=hub"}, {"lies in the checkpoint"});
  expect_refused({"export", "model", "x", "--adapter_format=hub"}, {"--adapter_format: 'model' is no adapter"});
  expect_refused({"export", "model", "x", "--base=model"}, {"--base: has no effect without --adapter_format"});
  expect_refused({"export", "out", "x", "--adapter_format=gguf"}, {"--adapter_format"});
}

TEST_F(Adapters, TheBaseMayLieElsewhere) {
  done(lora("out"));
  const double loss = loss_of({"out"});
  fs::rename(path("model"), path("moved"));
  expect_refused({"evaluate", "out", "--file=data.jsonl"},
                 {"base_model_name_or_path (--base names another): there is no folder 'model'"});
  EXPECT_EQ(loss_of({"out", "--base=moved"}), loss);
  expect_refused({"evaluate", "moved", "--base=moved", "--file=data.jsonl"}, {"--base: 'moved' is no adapter"});
}

// A run's folder means its checkpoint, as it does of a model.
TEST_F(Adapters, ARunBeginsWithAnAdapter) {
  done(lora("out"));
  const double loss = metrics("out").back()["eval_loss"];
  const Outcome outcome = done(lora("more", {"--adapter_name_or_path=out", "--eval_on_start"}));
  expect_part(outcome.err, "loaded the adapter out/checkpoint-4\n");
  EXPECT_NEAR(metrics("more")[0]["eval_loss"].get<double>(), loss, 1e-6);
  // Another scaling leaves what is added.
  done(lora("scaled", {"--adapter_name_or_path=out", "--eval_on_start", "--lora_alpha=5"}));
  EXPECT_NEAR(metrics("scaled")[0]["eval_loss"].get<double>(), loss, 1e-6);
}

// Also where one rank alone reads it.
TEST_F(Adapters, AValueThatIsNotFiniteIsNamed) {
  done(lora("out"));
  const std::string tensor = "base_model.model.model.layers.0.block_sparse_moe.experts.1.w3.lora_A.weight";
  const StoredPlace place = find_entry(path("out/checkpoint-4"), tensor);
  std::string bytes = read(place.file);
  bytes.replace(place.last, 4, "\xff\xff\xff\x7f");
  write(place.file, bytes);
  for (const Args& layout : layouts())
    expect_refused(
        lora("new", with(layout, {"--adapter_name_or_path=out"})),
        {"out/checkpoint-4/adapter_model.safetensors: tensor " + tensor + ": holds a value that is not finite"});
  expect_refused({"evaluate", "out", "--file=data.jsonl"}, {tensor + ": holds a value that is not finite"});
}

TEST_F(Adapters, OfScalingZeroAddNothing) {
  done(lora("out"));
  auto config = nlohmann::json::parse(read(path("out/checkpoint-4/adapter_config.json")));
  config["lora_alpha"] = 0;
  write(path("out/checkpoint-4/adapter_config.json"), config.dump());
  EXPECT_NEAR(loss_of({"out"}), loss_of({"model"}), 1e-6);
}

TEST_F(Adapters, WhatIsNoAdapterToTrainIsRefused) {
  done(lora("out"));
  const auto refused = [&](const Args& more, const Args& parts) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(more, " ")));
    expect_refused(four_steps("new", more), parts);
  };
  const Args rank = {"--adapter=lora", "--lora_r=8"};
  refused({"--lora_r=8"}, {"--lora_r: means nothing without an adapter; set adapter: lora"});
  refused({"--loraplus_lr_ratio=4"}, {"--loraplus_lr_ratio: means nothing without an adapter"});
  refused(with(rank, {"--loraplus_lr_ratio=0"}), {"--loraplus_lr_ratio: 0 is out of range"});
  refused({"--lora_init=pissa"}, {"--lora_init: means nothing without an adapter"});
  refused({"--adapter_name_or_path=out"}, {"--adapter_name_or_path: means nothing without an adapter"});
  refused(with(rank, {"--lora_target_modules=w1"}),
          {"--lora_target_modules: names some of w1, w2 and w3", "all three"});
  refused(with(rank, {"--lora_target_modules=gate_proj"}), {"'gate_proj' is not what", "write w1, w2, w3"});
  refused(with(rank, {"--lora_target_modules=embed_tokens", "--modules_to_save=embed_tokens"}),
          {"--modules_to_save: 'embed_tokens' is in lora_target_modules too"});
  refused(with(rank, {"--lora_target_modules=gate", "--modules_to_save=gate"}),
          {"--modules_to_save: 'gate' is in lora_target_modules too"});
  refused(with(rank, {"--lora_target_modules=lm_head", "--modules_to_save=lm_head"}),
          {"--modules_to_save: 'lm_head' is in lora_target_modules too"});
  refused(with(rank, {"--freeze=*lora_B*"}),
          {"--freeze: freezes base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight, which begins as 0",
           "lora_init: pissa"});
  refused(with(rank, {"--freeze=attention", "--freeze=experts"}), {"--freeze: freezes every weight"});
  refused(with(rank, {"--lora_target_modules=q_prj"}), {"did you mean 'q_proj'?"});
  refused({"--lora_dropout=0.1"}, {"--lora_dropout: means nothing without an adapter"});
  for (const char* share : {"1", "-0.1"})
    refused(with(rank, {fmt::format("--lora_dropout={}", share)}),
            {fmt::format("--lora_dropout: {} is out of range", share)});
  refused(with(rank, {"--resize_vocabulary"}), {"--resize_vocabulary: an adapter has no rows of the vocabulary"});
  refused(with(rank, {"--precision=fp8"}), {"--precision: adapters beside products in 8 bits are not supported yet"});
  refused(with(rank, {"--adapter_name_or_path=none"}), {"none: there is no such adapter folder"});
  refused(with(rank, {"--adapter_name_or_path=model"}), {"model: is no adapter's folder"});
  refused({"--adapter=lora", "--adapter_name_or_path=out"},
          {"out/checkpoint-4: has a pair of rank 8 of model.layers.0.self_attn.q_proj, and lora_r is 16"});
  refused(with(rank, {"--adapter_name_or_path=out", "--lora_target_modules=q_proj"}),
          {"out/checkpoint-4: has pairs of 10 weights, and 1 of them are to have some"});
}

// A run of before there were pairs of gates, which all-linear has today.
TEST_F(Adapters, GoOnFromWhereAllLinearHadNoGate) {
  done(lora("out"));
  cut("out");
  const std::string manifest = "out/checkpoint-2/manifest.json";
  auto old = nlohmann::json::parse(read(path(manifest)));
  ASSERT_EQ(old["contract"]["lora_target_modules"], "null");
  old["contract"]["lora_target_modules"] = R"(["all-linear"])";
  write(path(manifest), old.dump());
  const Args resume = {"--per_device_train_batch_size=4", "--resume_from_checkpoint=auto"};
  expect_refused(
      lora("out", with(resume, {"--lora_target_modules=all-linear"})),
      {"out/checkpoint-2: has no pair for ", "block_sparse_moe.gate",
       "set lora_r and lora_target_modules to what it has: 8, and k_proj, o_proj, q_proj, v_proj, w1, w2, w3"});
  Args named = resume;
  for (const char* module : {"q_proj", "k_proj", "v_proj", "o_proj", "w1", "w2", "w3"})
    named.push_back(fmt::format("--lora_target_modules={}", module));
  done(lora("out", named));
  fs::remove_all(path("out/checkpoint-2"));  // what goes on from here is said as it is now
  expect_refused(lora("out", with(resume, {"--lora_target_modules=q_proj"})), {"lora_target_modules was "});
}

TEST_F(Adapters, AreOfTheRunsContract) {
  done(lora("out"));
  done(four_steps("full", {"--per_device_train_batch_size=4"}));
  const auto refused = [&](const std::string& out, const Args& more, const Args& parts) {
    SCOPED_TRACE(fmt::format("{} {}", out, fmt::join(more, " ")));
    cut(out);
    expect_refused(four_steps(out, with(more, {"--per_device_train_batch_size=4", "--resume_from_checkpoint=auto"})),
                   parts);
  };
  refused("out", {}, {"out/checkpoint-2 is an adapter; put back adapter: lora, and the base"});
  refused("full", {"--adapter=lora"}, {"full/checkpoint-2 is a model, not an adapter; put back adapter: none"});
  refused("out", {"--adapter=lora", "--lora_r=16"}, {"lora_r was 8, is 16; put back what it was"});
  refused("out", {"--adapter=lora", "--lora_r=8", "--lora_alpha=8"}, {"lora_alpha was 32, is 8; put back"});
  for (const char* name : {"lora_r", "lora_init", "lora_target_modules", "adapter"})
    refused("out", {"--adapter=lora", "--lora_r=8", fmt::format("--allow_changes={}", name)},
            {fmt::format("--allow_changes: '{}' may not change", name), "begin a run"});
  const Args same = {"--adapter=lora", "--lora_r=8"};
  flip_last_byte("model/model.safetensors");
  refused("out", same, {"base was", "put back what it was"});
  done(four_steps("out", with(with(same, {"--per_device_train_batch_size=4", "--resume_from_checkpoint=auto"}),
                              {"--allow_changes=base"})));
}

}  // namespace
}  // namespace mixtune
