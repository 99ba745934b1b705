// The parts of a run that goes on: its manifest, its contract, its records.
#include <fmt/format.h>

#include <algorithm>

#include "base/staged.h"
#include "checkpoint/test_tensors.h"
#include "config/keys.h"
#include "config/load.h"
#include "run/contract.h"
#include "run/manifest.h"
#include "run/records.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;

const Manifest kWritten = {.mixtune = "0.1.0",
                           .step = 12,
                           .contract = {{"data", "abc"}},
                           .evaluation = {{"eval_loss", 0.1 + 0.2}, {"eval_perplexity", 1.35}},
                           .improvement = {.metric = "eval_loss", .best = 0.1, .evaluations_since = 4},
                           .skipped = {.count = 3, .in_a_row = 2},
                           .files = {{"state/a", {.size = 3, .xxh3 = "0123456789abcdef"}},
                                     {"state/b", {.size = 9, .xxh3 = "1", .tensors = {{"t", "2"}, {"u", "3"}}}}}};

TEST(Manifests, ReadBack) {
  EXPECT_EQ(parse_manifest(format_manifest(kWritten), "m"), kWritten);
}

TEST(Manifests, WhatAnOlderVersionLacksHasItsDefault) {
  const Manifest manifest = parse_manifest(R"({"format": 0, "step": 3, "files": {}, "later": [1]})", "m");
  EXPECT_EQ(manifest.step, 3);
  EXPECT_TRUE(manifest.contract.empty());
  EXPECT_TRUE(manifest.evaluation.empty());
  EXPECT_EQ(manifest.improvement, Improvement{});
  EXPECT_EQ(manifest.skipped, SkippedSteps{});
}

TEST(Manifests, OfARunThatWasNotEvaluated) {
  const Manifest written = {.step = 3, .improvement = {.metric = "eval_loss"}};
  EXPECT_EQ(parse_manifest(format_manifest(written), "m"), written);
}

TEST(Manifests, ACountThatIsNoneIsZero) {
  const auto skipped = [](const std::string& value) {
    return parse_manifest(fmt::format(R"({{"format": 1, "step": 3, "files": {{}}, "skipped_steps": {}}})", value), "m")
        .skipped;
  };
  EXPECT_EQ(skipped(R"({"count": 4, "in_a_row": -1})"), (SkippedSteps{4, 0}));
  EXPECT_EQ(skipped(R"({"count": 1e300, "in_a_row": "x"})"), SkippedSteps{});
  expect_user_error([&] { skipped("[1]"); }, {"m: is not the manifest"});
}

TEST(Manifests, WhatIsNoneIsRefused) {
  const auto refused = [](const std::string& text, const std::vector<std::string>& fragments) {
    expect_user_error([&] { parse_manifest(text, "m.json"); }, fragments);
  };
  for (const char* format : {"2.5", "-1", "1e300"})
    refused(fmt::format(R"({{"format": {}, "step": 3, "files": {{}}}})", format), {"m.json: names no format"});
  refused(R"({"format": 2, "step": 3, "files": {}})", {"m.json: is of format 2, newer than this version's 1"});
  for (const char* text :
       {"{}", R"({"format": 1, "files": {}})", R"({"format": 1, "step": 1, "files": {"a": 1}})",
        R"({"format": 1, "step": 1, "files": 7})",
        R"({"format": 1, "step": 1, "files": {"a": {"size": 1, "xxh3": "0", "tensors": [1]}}})",
        R"({"format": 1, "step": 1, "files": {"a": {"size": 1, "xxh3": "0", "tensors": {"t": 1}}}})"})
    refused(text, {"m.json: is not the manifest"});
  for (const char* step : {"0", "-1", "1.5", "1e300", "true", "9223372036854775807", "18446744073709551615"})
    refused(fmt::format(R"({{"format": 1, "step": {}, "files": {{}}}})", step), {"m.json: names no step"});
  for (const char* name : {"../x", "/x", "", "a/../../x", "./a", ".."})
    refused(fmt::format(R"({{"format": 1, "step": 1, "files": {{"{}": {{"size": 1, "xxh3": "0"}}}}}})", name),
            {"outside its folder"});
  refused("[", {"m.json"});
}

TEST(Manifests, FilesAreAllThereAndWhole) {
  const TempFolder folder;
  fs::create_directory(folder / "state");
  put(folder / "state/a", "abc");
  put(folder / "state/b.safetensors", "123456789");
  Manifest manifest = {.step = 12};
  manifest.files = {{"state/a", digest_file(folder / "state/a")},
                    {"state/b.safetensors", {.size = 9, .xxh3 = "of other bytes: it is not read"}}};
  put(folder / kManifestFile, format_manifest(manifest));
  EXPECT_EQ(read_manifest(folder.path()).step, 12);
  put(folder / "state/a", "abd");
  expect_user_error([&] { read_manifest(folder.path()); }, {"state/a: its bytes are not those that were written"});
  put(folder / "state/a", "ab");
  expect_user_error([&] { read_manifest(folder.path()); }, {"state/a: has 2 bytes, 3 were written"});
  fs::remove(folder / "state/a");
  expect_user_error([&] { read_manifest(folder.path()); }, {"state/a: is missing"});
  fs::remove(folder / kManifestFile);
  expect_user_error([&] { read_manifest(folder.path()); }, {"has no manifest.json", "model_name_or_path"});
}

// The reference's own values (its test vectors).
TEST(Manifests, DigestsAreXxh3) {
  const TempFolder folder;
  put(folder / "empty", "");
  EXPECT_EQ(digest_file(folder / "empty"), (StoredFile{0, "2d06800538d394c2"}));
  std::string large(40 << 20, 'x');
  put(folder / "large", large);
  const StoredFile whole = digest_file(folder / "large");
  large[35 << 20] ^= 1;
  put(folder / "large", large);
  EXPECT_EQ(digest_file(folder / "large").size, whole.size);
  EXPECT_NE(digest_file(folder / "large").xxh3, whole.xxh3);
}

TEST(Manifests, EveryTensorHasADigestOfItsOwn) {
  const TempFolder folder;
  constexpr int64_t kMany = 9 << 20;  // over several reads
  const std::vector<TestTensor> tensors = {{{"large", DType::kF32, {kMany}}, std::vector<float>(kMany, 0.5f)},
                                           {{"small", DType::kBF16, {3}}, {1, 2, 3}},
                                           {{"none", DType::kF32, {0}}, {}}};
  write_tensors(folder / "w.safetensors", tensors);
  const StoredFile file = digest_file(folder / "w.safetensors");
  ASSERT_EQ(file.tensors.size(), 3u);
  const SafetensorsFile stored(folder / "w.safetensors");
  for (const auto& [name, tensor] : stored.tensors()) {
    put(folder / "alone", stored.file().read(tensor.begin, tensor.bytes()));
    EXPECT_EQ(file.tensors.at(name), digest_file(folder / "alone").xxh3) << name;
  }
  fs::rename(folder / "alone", folder / "LICENSE.safetensors");  // none, by its content
  EXPECT_TRUE(digest_file(folder / "LICENSE.safetensors").tensors.empty());
}

Config config_with(const Overrides& overrides) {
  return parse_config("model_name_or_path: m\ntrain_file: t\noutput_dir: o\n", "run.yaml", overrides);
}

TEST(Contract, NamesWhatDiffers) {
  const Contract before = contract_of(config_with({{"seed", "1"}, {"learning_rate", "1e-3"}}));
  const auto check = [&](const Overrides& overrides) {
    const Config now = config_with(overrides);
    check_contract(before, contract_of(now), now);
  };
  check(
      {{"seed", "1"}, {"learning_rate", "1e-3"}, {"logging_steps", "7"}, {"output_dir", "other"}, {"zero_stage", "0"}});
  expect_user_error(
      [&] {
        check({{"seed", "2"}, {"packing", "true"}});
      },
      {"learning_rate was 0.001, is 5e-05", "packing was false, is true", "seed was 1, is 2",
       "--allow_changes learning_rate --allow_changes packing --allow_changes seed"});
  check({{"seed", "2"}, {"learning_rate", "1e-3"}, {"allow_changes", "seed"}});
  check_contract({}, before, config_with({}));  // an older version knew none of these
  check_contract({{"a key of later", "x"}}, before, config_with({}));
}

TEST(Contract, OfDataSetsAllButTheirPaths) {
  const auto with = [](const char* datasets) {
    return contract_of(
        parse_config(fmt::format("model_name_or_path: m\noutput_dir: o\ndatasets: {}\n", datasets), "run.yaml"));
  };
  EXPECT_EQ(with("[{path: a, weight: 1}]"), with("[{path: moved/a, weight: 1}]"));
  EXPECT_NE(with("[{path: a, weight: 1}]"), with("[{path: a, weight: 2}]"));
  EXPECT_NE(with("[{path: a}]"), with("[{path: a}, {path: b}]"));
}

TEST(Contract, RowsOfAStepMayNeverChange) {
  const Config config = config_with({{"allow_changes", "data"}});
  check_contract({{"data", "a"}}, {{"data", "b"}}, config);
  expect_user_error(
      [&] {
        check_contract({{"rows_per_step", "4"}}, {{"rows_per_step", "8"}}, config);
      },
      {"rows_per_step was 4, is 8", "put back what it was"});
  expect_user_error(
      [] {
        check_allowed_names(config_with({{"allow_changes", "rows_per_step"}}));
      },
      {"--allow_changes: 'rows_per_step' is nothing that must be the same"});
  expect_user_error([] { check_allowed_names(config_with({{"allow_changes", "sede"}})); }, {"'sede'"});
  check_allowed_names(config_with({{"allow_changes", "total_steps"}}));
}

TEST(Contract, WhatIsFrozenMayNeverChangeButInItsOrder) {
  const auto with = [](const char* freeze) {
    return config_with({{"freeze", "router"}, {"freeze", freeze}});
  };
  const Contract before = contract_of(with("norms"));
  EXPECT_EQ(before, contract_of(config_with({{"freeze", "norms"}, {"freeze", "router"}})));
  try {
    check_contract(before, contract_of(with("experts")), with("experts"));
    FAIL();
  } catch (const UserError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find(R"(freeze was ["norms","router"], is ["experts","router"]; put back what it was)"), text.npos)
        << text;
    EXPECT_EQ(text.find("allow_changes"), text.npos) << text;
  }
  expect_user_error(
      [] {
        check_allowed_names(config_with({{"allow_changes", "freeze"}}));
      },
      {"--allow_changes: 'freeze' may not change", "model_name_or_path"});
}

// Every key was decided about: one that is renamed or new shows here.
TEST(Contract, KnowsEveryKey) {
  std::vector<std::string> free;
  for (const Key& key : keys())
    if (may_differ(key.name)) free.emplace_back(key.name);
  EXPECT_EQ(free.size(), 58u) << "a key of kMayDiffer has another name now";
  EXPECT_EQ(keys().size(), 102u) << "may the new key differ when a run goes on (kMayDiffer), or is it in the contract?";
  for (const char* key : {"seed", "learning_rate", "packing", "shuffle", "max_seq_length", "weight_decay", "datasets",
                          "lr_scheduler_kwargs", "lr_groups", "freeze", "save_dtype", "moe_expert_capacity_factor",
                          "adapter", "lora_r", "modules_to_save", "lora_alpha", "lora_init", "loraplus_lr_ratio"})
    EXPECT_FALSE(may_differ(key)) << key;
}

TEST(Records, AreCutAfterAStep) {
  const TempFolder folder;
  const std::string path = folder / "metrics.jsonl";
  cut_records(path, 3);  // none there
  EXPECT_FALSE(fs::exists(path));
  const std::string kept = "{\"step\":1}\n{\"step\":2,\"x\":1}\n{\"step\":2,\"eval_loss\":1}\n";
  for (const char* rest : {"", "{\"step\":3}\n{\"step\":4}\n", "{\"step\":3", "junk\n", "{\"st"}) {
    put(path, kept + rest);
    cut_records(path, 2);
    EXPECT_EQ(get(path), kept) << rest;
  }
  cut_records(path, 0);
  EXPECT_EQ(get(path), "");
}

}  // namespace
}  // namespace mixtune
