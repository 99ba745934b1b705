#include "checkpoint/model_folder.h"

#include <unistd.h>

#include <algorithm>
#include <functional>
#include <map>

#include "base/json_value.h"
#include "checkpoint/load.h"
#include "checkpoint/test_model.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

class Model : public testing::Test {
 protected:
  Model() {
    State state = small_state();
    fill(state, DType::kBF16);
    save_checkpoint(ctx_, state, {.out_folder = model_, .config_json = "{\"a\": 1}\n", .dtype = DType::kF32});
    put(model_ + "/tokenizer.model", std::string("\0\xff\n binary", 10));
    put(model_ + "/LICENSE", "");
  }

  void link(const std::string& target, const std::string& name) { fs::create_symlink(target, model_ + "/" + name); }

  State load(const HfFolder& weights) {
    State state = small_state();
    load_weights(ctx_, weights, state);
    return state;
  }

  // What opening the folder logs, and the names of what a checkpoint then holds.
  std::pair<std::string, Names> saved() {
    testing::internal::CaptureStderr();
    const ModelFolder source(model_);
    const std::string said = testing::internal::GetCapturedStderr();
    save_checkpoint(ctx_, load(source.weights()), source.save_options(out_));
    return {said, entries(out_)};
  }

  TestCtx ctx_;
  TempFolder folder_;
  std::string model_ = folder_ / "model", out_ = folder_ / "out";
};

TEST_F(Model, SideFilesByTheirNames) {
  for (const char* name : {"tokenizer.model.v3", "tekken.json", "tokenizer.json", "tokenizer_config.json",
                           "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
                           "chat_template.jinja", "chat_template.json", "tool_use.jinja"}) {
    EXPECT_TRUE(is_side_file(name, SideFiles::kTokenizer)) << name;
    EXPECT_TRUE(is_side_file(name, SideFiles::kAll)) << name;
  }
  for (const char* name : {"generation_config.json", "README.md", "readme", "LICENSE", "LICENSE.txt", "NOTICE",
                           "License-2.0", "LICENCE", "COPYING", "PROVENANCE.md", "USE_POLICY.md"}) {
    EXPECT_FALSE(is_side_file(name, SideFiles::kTokenizer)) << name;
    EXPECT_TRUE(is_side_file(name, SideFiles::kAll)) << name;
  }
  for (const char* name :
       {".env", "id_rsa", "train_data.arrow", "config.json", "model.safetensors", "model.safetensors.index.json",
        "pytorch_model.bin", "params.json", "modeling_mixtral.py", "trainer_state.json", "notes.txt", ".git", "x.json"})
    EXPECT_FALSE(is_side_file(name, SideFiles::kAll)) << name;
}

TEST_F(Model, OnlySideFilesGoAlongAndTheRestIsSaidOnce) {
  for (const char* name : {".env", "train_data.arrow", "modeling.py", "generation_config.json", ".gitattributes"})
    put(model_ + "/" + name, "content");
  fs::create_directory(model_ + "/original");
  fs::create_directory(model_ + "/README");
  link("/nowhere", "dangling.jinja");
  link("LICENSE", "LICENSE.link");
  const auto [said, names] = saved();
  EXPECT_EQ(said, "mixtune: " + model_ + ": not copied into checkpoints: .env, modeling.py, train_data.arrow\n");
  EXPECT_EQ(names, (Names{"LICENSE", "LICENSE.link", "config.json", "generation_config.json", "model.safetensors",
                          "tokenizer.model"}));
  EXPECT_FALSE(fs::is_symlink(out_ + "/LICENSE.link"));
}

TEST_F(Model, AModelWithoutMoreIsSilent) {
  EXPECT_EQ(saved().first, "");
}

TEST_F(Model, LinksThatLeadOutAreLeftOut) {
  put(folder_ / "secret_token", "secret");
  link("../secret_token", "added_tokens.json");
  link("/proc/self/environ", "NOTICE");
  const auto [said, names] = saved();
  EXPECT_NE(said.find("warning: " + model_ + "/NOTICE: is a link that leads out"), std::string::npos) << said;
  EXPECT_NE(said.find("warning: " + model_ + "/added_tokens.json: is a link that leads out"), std::string::npos);
  EXPECT_EQ(names, (Names{"LICENSE", "config.json", "model.safetensors", "tokenizer.model"}));
}

TEST_F(Model, WhatTheModelIsMadeOfMayNotBeElsewhere) {
  for (const char* name : {"config.json", "model.safetensors"}) {
    fs::rename(model_ + "/" + name, folder_ / "elsewhere");
    link("../elsewhere", name);
    expect_user_error([&] { ModelFolder{model_}; }, {model_ + "/" + name + ": is a link that leads out"});
    fs::remove(model_ + "/" + name);
    fs::rename(folder_ / "elsewhere", model_ + "/" + name);
  }
  put(folder_ / "index", "{}");
  fs::remove(model_ + "/model.safetensors");
  link("../index", kIndexFile);
  expect_user_error([&] { ModelFolder{model_}; }, {std::string("/") + kIndexFile + ": is a link that leads out"});
}

// `hf download` leaves a model so: a folder of links to files that are named by their hashes.
TEST_F(Model, TheHubsCache) {
  const fs::path cache = folder_ / "hub/models--org--name", snapshot = cache / "snapshots/0123";
  fs::create_directories(cache / "blobs");
  fs::create_directories(snapshot);
  int number = 0;
  for (const std::string& name : entries(model_)) {
    const std::string hash = std::string(39, 'a') + std::to_string(number++);
    fs::copy_file(model_ + "/" + name, cache / "blobs" / hash);
    fs::create_symlink("../../blobs/" + hash, snapshot / name);
  }
  const Names before = entries(model_);
  fs::remove_all(model_);
  model_ = snapshot;
  const auto [said, names] = saved();
  EXPECT_EQ(said, "");
  EXPECT_EQ(names, before);
}

TEST_F(Model, SideFilesAreBounded) {
  put(model_ + "/README.md", "");
  fs::resize_file(model_ + "/README.md", (uint64_t{64} << 20) + 1);
  const auto [said, names] = saved();
  EXPECT_NE(said.find("README.md: is too large for a side file, with 64.0 MiB"), std::string::npos) << said;
  EXPECT_EQ(names, (Names{"LICENSE", "config.json", "model.safetensors", "tokenizer.model"}));
}

TEST_F(Model, ASideFileThatCannotBeOpenedIsAnError) {
  if (geteuid() == 0) GTEST_SKIP() << "root may open everything";
  fs::permissions(model_ + "/LICENSE", fs::perms::none);
  expect_user_error([&] { ModelFolder{model_}; }, {model_ + "/LICENSE: cannot be opened: Permission denied"});
}

// The folder may change once it is open, and its weights are loaded.
TEST_F(Model, IsReadWhenItIsOpened) {
  const std::map<std::string, std::string> before = [&] {
    std::map<std::string, std::string> files;
    for (const std::string& name : entries(model_)) files[name] = get(model_ + "/" + name);
    return files;
  }();
  const std::vector<std::function<void()>> changes = {
      [&] { put(model_ + "/tokenizer.model", ""); },
      [&] { put(model_ + "/tokenizer.model", std::string("\0\xff\n BINARY", 10)); },
      [&] { put(model_ + "/config.json", "{}"); },
      [&] { put(model_ + "/model.safetensors", ""); },
      [&] { put(model_ + "/NOTICE", "new"); },
      [&] { fs::remove_all(model_); },
  };
  for (const auto& change : changes) {
    const ModelFolder source(model_);
    const State state = load(source.weights());
    change();
    save_checkpoint(ctx_, state, source.save_options(out_));
    for (const auto& [name, content] : before) EXPECT_TRUE(get(out_ + "/" + name) == content) << name;
    EXPECT_EQ(entries(out_).size(), before.size());
    fs::remove_all(model_);
    fs::rename(out_, model_);
  }
}

// A file stands for the tokeniser of its folder, whatever its name.
TEST_F(Model, TakesTheFilesOfAnotherTokeniser) {
  const std::string other = folder_ / "other";
  fs::create_directory(other);
  for (const char* name : {"tokenizer.json", "tokenizer.model", "spm.model", "added_tokens.json", "README.md"})
    put(other + "/" + name, name);
  put(model_ + "/special_tokens_map.json", "{}");
  const auto saved_with = [&](const std::string& path) {
    ModelFolder source(model_);
    source.set_vocab_size(12);
    source.set_tokenizer(path);
    fs::remove_all(out_);
    save_checkpoint(ctx_, load(source.weights()), source.save_options(out_));
    EXPECT_EQ(get(out_ + "/config.json"), "{\"vocab_size\": 12,\"a\": 1}\n");
    EXPECT_EQ(get(out_ + "/added_tokens.json"), "added_tokens.json");
    return entries(out_);
  };
  const Names either = {"LICENSE", "added_tokens.json", "config.json", "model.safetensors"};
  const auto and_also = [&](Names names) {
    names.insert(names.begin(), either.begin(), either.end());
    return names;
  };
  EXPECT_EQ(saved_with(other), and_also({"tokenizer.json", "tokenizer.model"}));
  EXPECT_EQ(saved_with(other + "/tokenizer.json"), and_also({"tokenizer.json"}));
  EXPECT_EQ(saved_with(other + "/spm.model"), and_also({"tokenizer.model"}));
  EXPECT_EQ(get(out_ + "/tokenizer.model"), "spm.model");
}

const std::string* content(const std::vector<SideFile>& files, std::string_view name) {
  const auto file = std::ranges::find(files, name, &SideFile::name);
  return file == files.end() ? nullptr : &file->content;
}

TEST(ChatTemplateOfSideFiles, GetsAConfigWhereThereIsNone) {
  std::vector<SideFile> files = {{"README.md", ""}, {"tokenizer.model", ""}};
  set_chat_template(files, "{{ x }}", {.bos = "<s>", .eos = "</s>", .unk = "<unk>"});
  ASSERT_EQ(files.size(), 3u);
  EXPECT_EQ(files[2].name, "tokenizer_config.json");
  const auto config = nlohmann::json::parse(files[2].content);
  EXPECT_EQ(config, (nlohmann::json{{"add_bos_token", true},
                                    {"add_eos_token", false},
                                    {"bos_token", "<s>"},
                                    {"eos_token", "</s>"},
                                    {"unk_token", "<unk>"},
                                    {"legacy", true},
                                    {"tokenizer_class", "LlamaTokenizer"},
                                    {"chat_template", "{{ x }}"}}));
}

TEST(ChatTemplateOfSideFiles, LeavesAConfigWithoutOneAsItIs) {
  std::vector<SideFile> files = {{"tokenizer.model", ""}, {"tokenizer_config.json", "{\"a\":1}"}};
  set_chat_template(files, "{{ x }}", {});
  EXPECT_EQ(*content(files, "tokenizer_config.json"), "{\"a\":1}");
  EXPECT_EQ(*content(files, "chat_template.jinja"), "{{ x }}");
  EXPECT_TRUE(std::ranges::is_sorted(files, {}, &SideFile::name));
}

TEST(ChatTemplateOfSideFiles, NoFileSaysAnother) {
  std::vector<SideFile> files = {{"chat_template.jinja", "old"},
                                 {"tokenizer.model", ""},
                                 {"tokenizer_config.json", R"({"b": 1, "chat_template": "older", "a": 2})"}};
  set_chat_template(files, "new", {});
  EXPECT_EQ(*content(files, "chat_template.jinja"), "new");
  EXPECT_EQ(*content(files, "tokenizer_config.json"), "{\n  \"b\": 1,\n  \"chat_template\": \"new\",\n  \"a\": 2\n}\n");
  const std::vector<SideFile> once = files;
  set_chat_template(files, "new", {});
  EXPECT_EQ(*content(files, "tokenizer_config.json"), *content(once, "tokenizer_config.json"));
}

TEST(ChatTemplateOfSideFiles, TemplateWithItsOwnSpacesGetsNoMore) {
  std::vector<SideFile> files = {{"tokenizer.model", ""}, {"tokenizer_config.json", R"({"legacy": true, "a": 1})"}};
  set_chat_template(files, "new", {.legacy = false});
  EXPECT_EQ(nlohmann::json::parse(*content(files, "tokenizer_config.json")),
            (nlohmann::json{{"legacy", false}, {"a", 1}, {"chat_template", "new"}}));
  EXPECT_EQ(content(files, "chat_template.jinja"), nullptr);
}

TEST(ChatTemplateOfSideFiles, NeedsATokeniser) {
  std::vector<SideFile> files = {{"README.md", ""}};
  set_chat_template(files, "{{ x }}", {});
  EXPECT_EQ(files.size(), 1u);
}

}  // namespace
}  // namespace mixtune
