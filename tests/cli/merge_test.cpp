// `mixtune merge`: a base and adapters to a plain Hugging Face folder; and `inspect` of an adapter.
#include "base/test_paths.h"
#include "rank_runs.h"

namespace mixtune {
namespace {

const std::string kBase = source_path("tests/fixtures/hf/plain");

std::string adapter_fixture(const std::string& name) {
  return source_path("tests/fixtures/peft/" + name);
}

class Merge : public testing::Test {
 protected:
  fs::path path(const std::string& name) const { return work_.path() / name; }
  Outcome run(const Args& args) const { return run_mixtune(args, work_.path()); }

  Outcome merged(const Args& args) const {
    Args all = {"merge"};
    all.insert(all.end(), args.begin(), args.end());
    Outcome outcome = run(all);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome;
  }

  // Expects one line and nothing written.
  void expect_refused(const Args& args, const Args& parts) const {
    const auto before = snapshot(work_.path());
    Args all = {"merge"};
    all.insert(all.end(), args.begin(), args.end());
    const Outcome outcome = run(all);
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    expect_one_error(outcome, parts);
    EXPECT_EQ(snapshot(work_.path()), before);
  }

  std::string weights(const std::string& name) const { return read(path(name + "/model.safetensors")); }

  TempFolder work_;
};

TEST_F(Merge, SaysWhatItDid) {
  const Outcome outcome = merged({kBase, adapter_fixture("packed"), "a/out"});
  expect_part(outcome.out, "a/out: merged into 26 of ");
  expect_part(outcome.out,
              "(2 v_proj, 8 w1, 8 w2, 8 w3): 100.0% of their elements changed, |merged - exact| / |delta| = ");
  expect_part(outcome.err, "rank 4, alpha 8, rslora, 26 pairs, trained on tests/fixtures/hf/plain");
  EXPECT_EQ(lines_of(outcome.out).size(), 1u);
  const Outcome diff = run({"diff", kBase, "a/out"});
  EXPECT_EQ(diff.code, 1) << diff.err;
  expect_part(diff.out, "tensors are the same, bit for bit");
  expect_part(diff.out, "layers.1.block_sparse_moe.experts.3.w2.weight");
  EXPECT_EQ(diff.out.find("q_proj"), diff.out.npos) << diff.out;
  EXPECT_EQ(run({"inspect", "a/out"}).code, 0);
}

TEST_F(Merge, ALayoutMakesNoDifference) {
  merged({kBase, adapter_fixture("hub"), "hub"});
  merged({kBase, adapter_fixture("block_diagonal"), "joined"});
  EXPECT_TRUE(weights("hub") == weights("joined"));
}

TEST_F(Merge, SeveralWithWeights) {
  merged({kBase, adapter_fixture("hub") + ":0.5", adapter_fixture("hub") + ":5e-1", "halves"});
  merged({kBase, adapter_fixture("hub"), "whole"});
  EXPECT_TRUE(weights("halves") == weights("whole"));
  merged({kBase, adapter_fixture("hub"), adapter_fixture("hub") + ":-1", "none", "--dtype=bf16"});
  EXPECT_EQ(run({"export", kBase, "exported", "--dtype=bf16"}).code, 0);
  EXPECT_TRUE(weights("none") == weights("exported"));
  fs::create_directory_symlink(adapter_fixture("packed"), path("name:2"));
  expect_part(merged({kBase, "name:2", "path"}).err, "name:2: rank 4");  // a path, and no weight
}

TEST_F(Merge, ARunsFolderMeansItsCheckpoint) {
  fs::create_directories(path("run"));
  fs::copy(adapter_fixture("hub"), path("run/checkpoint-3"));
  write(path("run/latest"), "checkpoint-3\n");
  expect_part(merged({kBase, "run", "out"}).err, "its latest checkpoint, checkpoint-3, is taken");
  merged({kBase, adapter_fixture("hub"), "same"});
  EXPECT_TRUE(weights("out") == weights("same"));
}

// Whole weights without a pair are merged, looked at and computed with.
TEST_F(Merge, WholeWeightsAlone) {
  const std::string alone = adapter_fixture("no_pairs");
  const Outcome outcome = merged({kBase, alone, "out"});
  expect_part(outcome.err, "rank 4, alpha 8, 0 pairs, 3 whole weights");
  expect_part(outcome.out, "(2 gate, 1 norm): 100.0% of their elements changed");
  expect_part(run({"inspect", alone}).out, "pairs        none\nwhole        2 x gate, 1 x norm\n");
  const auto text = [&](const std::vector<std::string>& model) {
    std::vector<std::string> args = {"generate"};
    args.insert(args.end(), model.begin(), model.end());
    args.insert(args.end(), {"--ids=1,5,9,13", "--max-new-tokens=12"});
    const Outcome said = run(args);
    EXPECT_EQ(said.code, 0) << said.err;
    return said.out;
  };
  EXPECT_EQ(text({alone, "--base=" + kBase}), text({"out"}));
  EXPECT_NE(text({"out"}), text({kBase}));
}

TEST_F(Merge, WhatIsWrongIsNamed) {
  const std::string hub = adapter_fixture("hub");
  expect_refused({kBase, hub}, {"OUT: is missing", "mixtune merge BASE ADAPTER OUT"});
  expect_refused({kBase, hub, "none", "out"}, {"none: there is no such adapter folder"});
  expect_refused({kBase, hub + ":x", "out"}, {"its weight is no number: 'x'", "PATH:WEIGHT"});
  expect_refused({kBase, hub + ":inf", "out"}, {"its weight is no number: 'inf'"});
  expect_refused({kBase, kBase, "out"}, {"is no adapter's folder: it has no adapter_config.json"});
  expect_refused({hub, kBase, "out"}, {"holds a PEFT adapter, not a model (its base: tests/fixtures/hf/plain)",
                                       "mixtune merge BASE ADAPTER OUT"});
  expect_refused({source_path("examples/quickstart/pretrained"), hub, "out"},
                 {"but the base asks for", "give the base"});
  expect_refused({kBase, hub, "out", "--dtype=fp8"}, {"--dtype"});
  write(path("out"), "");
  expect_refused({kBase, hub, "out"}, {"out: exists already"});
  fs::copy(hub, path("adapter"));
  expect_refused({kBase, "adapter", "adapter/out"}, {"lies in the checkpoint that is read"});
}

// An adapter where a model is asked for.
TEST_F(Merge, AnAdapterIsNoModel) {
  const Outcome outcome = run({"export", adapter_fixture("hub"), "out"});
  EXPECT_EQ(outcome.code, 2);
  expect_part(outcome.err, "holds a PEFT adapter, not a model (its base: tests/fixtures/hf/plain)");
}

TEST_F(Merge, InspectDescribesAnAdapter) {
  const Outcome hub = run({"inspect", adapter_fixture("hub")}),
                packed = run({"inspect", adapter_fixture("packed_old")});
  EXPECT_EQ(hub.code, 0) << hub.err;
  EXPECT_EQ(hub.out,
            "adapter      LoRA, rank 4, alpha 8\n"
            "base         tests/fixtures/hf/plain\n"
            "pairs        2 x gate, 2 x q_proj, 8 x w1, 8 x w2, 8 x w3 (one for each weight)\n"
            "parameters   5408\n"
            "tensors      56 x F32\n");
  expect_part(packed.out, "LoRA, rank 4, alpha 8, others by pattern\n");
  expect_part(packed.out, "4 x experts, 2 x o_proj, 2 x q_proj (experts packed)\n");
  expect_part(packed.out, "PEFT 0.18.1\n");
}

}  // namespace
}  // namespace mixtune
