// `mixtune export`: from a checkpoint to a plain Hugging Face folder.
#include <cstring>

#include "base/test_paths.h"
#include "rank_runs.h"

namespace mixtune {
namespace {

// The headers of a folder's weights, by tensor, without their places.
std::map<std::string, std::string> tensors_in(const fs::path& folder) {
  std::map<std::string, std::string> tensors;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".safetensors" || entry.path().filename() == "expected.safetensors") continue;
    const std::string bytes = read(entry.path());
    uint64_t size = 0;
    std::memcpy(&size, bytes.data(), sizeof(size));
    const nlohmann::json header = nlohmann::json::parse(bytes.substr(sizeof(size), size));
    for (const auto& [name, tensor] : header.items())
      if (name != "__metadata__") tensors[name] = fmt::format("{} {}", tensor["dtype"].dump(), tensor["shape"].dump());
  }
  return tensors;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::ranges::sort(names);
  return names;
}

class Export : public RankRuns {
 protected:
  // Trains two steps, with these arguments more.
  void train_to(const std::string& out, Args more = {}) const {
    more.insert(more.end(), {"--max_steps=2", "--per_device_train_batch_size=2"});
    done(train(out, more));
  }

  Outcome exported(const std::string& from, const std::string& to, const Args& more = {}) const {
    Args args = {"export", from, to};
    args.insert(args.end(), more.begin(), more.end());
    return done(args);
  }

  void expect_same_file(const std::string& a, const std::string& b) const {
    EXPECT_TRUE(fs::exists(path(a))) << a;
    EXPECT_TRUE(read(path(a)) == read(path(b))) << a << " and " << b;
  }

  // Expects one line and nothing written.
  void expect_refused(const Args& args, const Args& parts, int code = 2) const {
    const auto before = snapshot(work_.path());
    Args all = {"export"};
    all.insert(all.end(), args.begin(), args.end());
    const Outcome outcome = run(all);
    EXPECT_EQ(outcome.code, code) << outcome.err;
    expect_one_error(outcome, parts);
    EXPECT_EQ(snapshot(work_.path()), before);
  }

  // Makes the first value of model/'s first tensor this one.
  void set_first_value(float value) const {
    std::string file = read(path("model/model.safetensors"));
    uint64_t size = 0;
    std::memcpy(&size, file.data(), sizeof(size));
    std::memcpy(file.data() + sizeof(size) + size, &value, sizeof(value));
    write(path("model/model.safetensors"), file);
  }
};

TEST_F(Export, ACheckpointBecomesAPlainFolder) {
  train_to("out");
  const Outcome outcome = exported("out", "a/new/plain");
  expect_part(outcome.out, "a/new/plain: ");
  expect_part(outcome.err, "checkpoint-2, is taken");
  std::vector<std::string> expected = names_in(path("out/checkpoint-2"));
  std::erase_if(expected, [](const std::string& name) { return name == "state" || name == "manifest.json"; });
  EXPECT_EQ(names_in(path("a/new/plain")), expected);
  for (const std::string& name : expected) expect_same_file("a/new/plain/" + name, "out/checkpoint-2/" + name);
}

TEST_F(Export, IsCutAsACheckpointIs) {
  train_to("out", {"--max_shard_size=100KB"});
  exported("out", "plain", {"--max_shard_size=100KB"});
  const std::vector<std::string> names = names_in(path("plain"));
  EXPECT_GT(std::ranges::count_if(names, [](const std::string& name) { return name.ends_with(".safetensors"); }), 2);
  for (const std::string& name : names) expect_same_file("plain/" + name, "out/checkpoint-2/" + name);
}

// What a run that saves in this type writes, another one's checkpoint is exported to.
TEST_F(Export, AnotherTypeIsThatOfARunThatSavesInIt) {
  train_to("fp32");
  train_to("bf16", {"--save_dtype=bf16"});
  exported("fp32", "narrow", {"--dtype=bf16"});
  for (const char* name : {"model.safetensors", "config.json"})
    expect_same_file(fmt::format("narrow/{}", name), fmt::format("bf16/checkpoint-2/{}", name));
  exported("bf16", "same", {"--dtype=bf16"});
  expect_same_file("same/model.safetensors", "narrow/model.safetensors");
}

// A checkpoint in bf16 has the weights of a run in fp32 in its state/: these are exported, rounded once.
TEST_F(Export, TakesTheWeightsOfTheState) {
  train_to("fp32");
  train_to("bf16", {"--save_dtype=bf16"});
  const Outcome outcome = exported("bf16", "wide", {"--dtype=fp32"});
  expect_part(outcome.err, "tensors are from its state/");
  expect_same_file("wide/model.safetensors", "fp32/checkpoint-2/model.safetensors");
  exported("bf16", "half", {"--dtype=fp16"});
  exported("fp32", "half_of_fp32", {"--dtype=fp16"});
  expect_same_file("half/model.safetensors", "half_of_fp32/model.safetensors");
  expect_part(read(path("half/config.json")), "\"torch_dtype\": \"float16\"");
  const Outcome plain = exported("bf16", "plain");
  EXPECT_EQ(plain.err.find("state/"), std::string::npos) << plain.err;
  expect_same_file("plain/model.safetensors", "bf16/checkpoint-2/model.safetensors");
  exported("plain", "widened", {"--dtype=fp32"});  // nothing finer is left
  EXPECT_NE(read(path("widened/model.safetensors")), read(path("wide/model.safetensors")));
}

// Two ranks with ZeRO have pieces of the weights each.
TEST_F(Export, PutsThePiecesOfRanksTogether) {
  const Args two = {"--nproc=2", "--expert_model_parallel_size=2"};
  train_to("fp32", two);
  train_to("bf16", {"--nproc=2", "--expert_model_parallel_size=2", "--save_dtype=bf16"});
  exported("bf16", "wide", {"--dtype=fp32"});
  exported("fp32", "one");
  expect_same_file("wide/model.safetensors", "one/model.safetensors");
}

TEST_F(Export, InShardsOfAnySizeAndBack) {
  exported("model", "shards", {"--max_shard_size=100KB"});
  EXPECT_TRUE(fs::exists(path("shards/model.safetensors.index.json")));
  EXPECT_TRUE(fs::exists(path("shards/model-00003-of-00003.safetensors")));
  EXPECT_FALSE(fs::exists(path("shards/model.safetensors")));
  exported("shards", "back");
  EXPECT_EQ(names_in(path("back")), names_in(path("model")));
  for (const std::string& name : names_in(path("model"))) expect_same_file("back/" + name, "model/" + name);
  done({"evaluate", "shards", "--file=data.jsonl", "--max_seq_length=64"});
}

// Every tensor, shape and side file of the base; packed experts under the hub's names.
TEST_F(Export, HasTheTensorsOfItsBase) {
  const std::string fixtures = source_path("tests/fixtures/hf/");
  exported(fixtures + "tied", "tied");
  EXPECT_EQ(tensors_in(path("tied")), tensors_in(fixtures + "tied"));
  exported(fixtures + "packed", "packed");
  exported("packed", "again");
  EXPECT_TRUE(tensors_in(path("packed")).contains("model.layers.1.block_sparse_moe.experts.0.w3.weight"));
  EXPECT_FALSE(tensors_in(path("packed")).contains("model.layers.1.mlp.experts.gate_up_proj"));
  expect_same_file("again/model.safetensors", "packed/model.safetensors");
  const std::string quickstart = source_path("examples/quickstart/pretrained");
  exported(quickstart, "quickstart");
  EXPECT_EQ(tensors_in(path("quickstart")), tensors_in(quickstart));
  EXPECT_EQ(names_in(path("quickstart")), names_in(quickstart));
}

TEST_F(Export, AConfigWithoutArchitecturesGetsThem) {
  std::string config = read(path("model/config.json"));
  const std::string entry = "\"architectures\": [\"MixtralForCausalLM\"], ";
  ASSERT_NE(config.find(entry), config.npos);
  write(path("model/config.json"), config.erase(config.find(entry), entry.size()));
  exported("model", "out");
  EXPECT_EQ(nlohmann::json::parse(read(path("out/config.json")))["architectures"][0], "MixtralForCausalLM");
}

TEST_F(Export, WhatATypeCannotHoldIsRefusedByName) {
  set_first_value(65520);  // rounds to infinity
  expect_refused(
      {"model", "out", "--dtype=fp16"},
      {"model/model.safetensors: tensor 'model.embed_tokens.weight' holds a value too large for fp16", "bf16"});
  set_first_value(65519);
  exported("model", "out", {"--dtype=fp16"});
  set_first_value(std::numeric_limits<float>::infinity());
  expect_refused({"model", "again"}, {"tensor 'model.embed_tokens.weight' holds NaN or infinity"});
  expect_refused({"model", "again", "--dtype=bf16"}, {"tensor 'model.embed_tokens.weight' holds NaN or infinity"});
}

TEST_F(Export, WhatIsThereIsNotReplaced) {
  expect_refused({"model", "model"}, {"model: exists already"});
  write(path("file"), "");
  expect_refused({"model", "file/"}, {"file: exists already"});
  fs::create_symlink("nowhere", path("link"));
  expect_refused({"model", "link"}, {"link: exists already"});
  expect_refused({"model", ""}, {"OUT: is empty"});
}

TEST_F(Export, NothingIsPutIntoTheCheckpoint) {
  fs::create_directory_symlink("model", path("alias"));
  for (const char* out : {"model/out", "alias/out", "model/../model/a/b"})
    expect_refused({"model", out}, {"lies in the checkpoint"});
  expect_refused({"alias/", "model/out"}, {"lies in the checkpoint"});
  exported("model", "model2");  // a longer name is none in it
}

TEST_F(Export, AFolderThatIsNotWholeIsRefused) {
  expect_refused({"none", "out"}, {"none: there is no such model folder"});
  exported("model", "shards", {"--max_shard_size=100KB"});
  fs::remove(path("shards/model-00002-of-00003.safetensors"));
  expect_refused({"shards", "out"}, {"model-00002-of-00003.safetensors"});
  fs::resize_file(path("model/model.safetensors"), fs::file_size(path("model/model.safetensors")) - 1);
  expect_refused({"model", "out"}, {"model.safetensors: tensor", "the file is too short"});
  fs::remove(path("model/model.safetensors"));
  expect_refused({"model", "out"}, {"has neither model.safetensors nor"});
}

TEST_F(Export, NothingInTheStatesIndexIsTrusted) {
  train_to("out", {"--save_dtype=bf16"});
  const fs::path index = path("out/checkpoint-2/state/index.json");
  const std::string good = read(index);
  const auto refused = [&](const std::string& text, const std::string& part) {
    write(index, text);
    expect_refused({"out", "plain", "--dtype=fp32"}, {"state/index.json", part});
  };
  nlohmann::json parsed = nlohmann::json::parse(good);
  nlohmann::json bad = parsed;
  std::erase_if(bad["pieces"].get_ref<nlohmann::json::array_t&>(), [](const nlohmann::json& piece) {
    return piece["kind"] == "weight" && piece["tensor"] == "lm_head.weight";
  });
  refused(bad.dump(), "weight of 'lm_head.weight' is not there whole");
  for (nlohmann::json& piece : bad["pieces"])
    if (piece["kind"] == "weight") piece["first"] = 1;
  refused(bad.dump(), "is not as its file has it");
  bad = parsed;
  for (nlohmann::json& piece : bad["pieces"]) piece["file"] = "../model.safetensors";
  refused(bad.dump(), "outside its folder");
  refused("{\"pieces\": 7}", "is not an index");
  refused("[]", "");
}

// The shell's limit on a file's size stands for a full disk.
TEST_F(Export, AWriteThatFailsLeavesNothing) {
  const auto before = snapshot(work_.path());
  const Outcome outcome = run_shell("ulimit -f 200; \"$0\" export model out", work_.path());
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  expect_one_error(outcome, {"model.safetensors", "written"});
  EXPECT_EQ(snapshot(work_.path()), before);
}

TEST_F(Export, BadFlagsAreNamed) {
  expect_refused({"model", "out", "--dtype=fp8"}, {"--dtype"});
  expect_refused({"model", "out", "--max_shard_size=5"}, {"--max_shard_size"});
  expect_refused({"model"}, {"OUT"});
}

}  // namespace
}  // namespace mixtune
