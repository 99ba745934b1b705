// Folders that users give as a model, through the program itself: some train, some are refused by name.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "base/json_value.h"
#include "program.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;

class ModelFolders : public testing::Test {
 protected:
  void SetUp() override {
    make_model(path("model"));
    write(path("data.jsonl"), "{\"text\": \"one two three\"}\n{\"text\": \"four five\"}\n");
  }

  fs::path path(const std::string& name) const { return work_.path() / name; }

  Outcome run(const std::vector<std::string>& args, int code = 0) const {
    Outcome outcome = run_mixtune(args, work_.path());
    EXPECT_EQ(outcome.code, code) << outcome.err;
    return outcome;
  }

  static std::vector<std::string> train(const std::string& model, const std::string& out = "out") {
    return {"train",
            "--model_name_or_path=" + model,
            "--train_file=data.jsonl",
            "--output_dir=" + out,
            "--max_steps=1",
            "--max_seq_length=64",
            "--device=cpu"};
  }

  // Expects that each command that takes a model refuses `folder` alike, in one line.
  void expect_refused(const std::string& folder, const std::vector<std::string>& fragments) const {
    expect_refused({train(folder),
                    {"evaluate", folder, "--file=data.jsonl"},
                    {"generate", folder, "--ids=1"},
                    {"inspect", folder}},
                   fragments);
  }
  void expect_refused(const std::vector<std::vector<std::string>>& commands,
                      const std::vector<std::string>& fragments) const {
    for (const auto& args : commands) {
      const Outcome outcome = run(args, 2);
      EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
      for (const std::string& fragment : fragments)
        EXPECT_NE(outcome.err.find(fragment), std::string::npos) << args[0] << ": " << outcome.err;
    }
    EXPECT_FALSE(fs::exists(path("out")));
  }

  TempFolder work_;
};

// Makes model.safetensors a shard with an index, and adds a tensor that the index does not list.
void add_unlisted_tensor(const fs::path& model, const std::string& name) {
  const std::string file = read(model / "model.safetensors");
  uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof(length));
  auto header = nlohmann::json::parse(file.substr(sizeof(length), length));
  const std::string tensors = file.substr(sizeof(length) + length);
  nlohmann::json weight_map;
  for (const auto& [tensor, entry] : header.items())
    if (tensor != "__metadata__") weight_map[tensor] = "model-00001-of-00001.safetensors";
  header[name] = {{"dtype", "F32"}, {"shape", {2}}, {"data_offsets", {tensors.size(), tensors.size() + 8}}};
  const std::string text = header.dump();
  length = text.size();
  fs::remove(model / "model.safetensors");
  write(model / "model-00001-of-00001.safetensors",
        std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + text + tensors + std::string(8, '\0'));
  write(model / "model.safetensors.index.json", nlohmann::json({{"weight_map", weight_map}}).dump());
}

TEST_F(ModelFolders, ATensorThatTheIndexDoesNotListIsIgnoredWithAWarning) {
  const std::string buffer = "model.layers.0.self_attn.rotary_emb.inv_freq";
  add_unlisted_tensor(path("model"), buffer);
  const Outcome outcome = run(train("model"));
  EXPECT_NE(outcome.err.find("warning: model: model.safetensors.index.json does not list"), std::string::npos)
      << outcome.err;
  EXPECT_NE(outcome.err.find(buffer), std::string::npos) << outcome.err;
}

TEST_F(ModelFolders, APadTokenOfMinusOne) {
  std::string config = read(path("model/config.json"));
  config.insert(config.find('{') + 1, "\"pad_token_id\": -1, ");
  write(path("model/config.json"), config);
  run(train("model"));
  EXPECT_EQ(read(path("out/checkpoint-1/config.json")), config);
}

TEST_F(ModelFolders, AnAdapter) {
  fs::create_directory(path("adapter"));
  write(path("adapter/adapter_config.json"),
        R"({"peft_type": "LORA", "base_model_name_or_path": "mistralai/Mixtral-8x7B-v0.1", "r": 8, "lora_alpha": 8})");
  write(path("adapter/tokenizer.model"), read(path("model/tokenizer.model")));
  const auto expect_no_base = [&] {
    expect_refused({train("adapter")}, {"PEFT adapter", "mistralai/Mixtral-8x7B-v0.1", "merge it into its base"});
    expect_refused({{"evaluate", "adapter", "--file=data.jsonl"}, {"generate", "adapter", "--ids=1"}},
                   {"adapter/adapter_config.json: base_model_name_or_path (--base names another)",
                    "there is no folder 'mistralai/Mixtral-8x7B-v0.1'", "hf download mistralai/Mixtral-8x7B-v0.1"});
  };
  expect_no_base();
  write(path("adapter/config.json"), read(path("model/config.json")));  // some trainers leave the base's beside it
  expect_no_base();
}

TEST_F(ModelFolders, OtherFormats) {
  fs::create_directory(path("gguf"));
  write(path("gguf/mixtral-q4.gguf"), "GGUF");
  expect_refused("gguf", {"GGUF", "safetensors folder"});
  fs::create_directory(path("mistral"));
  write(path("mistral/params.json"), "{}");
  write(path("mistral/consolidated.00.pt"), "");
  expect_refused("mistral", {"Mistral's own format"});
}

TEST_F(ModelFolders, ARunsFolderIsItsLatestCheckpoint) {
  run(train("model"));
  const std::string said = "mixtune: out: a run's folder: its latest checkpoint, checkpoint-1, is taken\n";
  const std::vector<std::vector<std::string>> commands = {
      {"evaluate", "out", "--file=data.jsonl"},
      {"generate", "out", "--prompt=one"},
      {"inspect", "out"},
      {"preprocess", "--train_file=data.jsonl", "--model_name_or_path=out", "--output=tokens.jsonl"},
      train("out", "again")};
  for (const auto& args : commands) {
    const Outcome outcome = run(args);
    EXPECT_TRUE(outcome.err.starts_with(said)) << args[0] << ": " << outcome.err;
    EXPECT_EQ(outcome.err.find(said, 1), std::string::npos) << outcome.err;
  }
  write(path("out/latest"), "../model\n");
  run({"generate", "out", "--ids=1"}, 2);
  write(path("out/latest"), "checkpoint-2\n");
  EXPECT_NE(run({"generate", "out", "--ids=1"}, 2).err.find("names checkpoint-2, which is not there"),
            std::string::npos);
}

TEST_F(ModelFolders, ACheckpointThatWasMovedAndLinkedTo) {
  run(train("model"));
  fs::rename(path("out/checkpoint-1"), path("moved"));
  fs::create_symlink("../moved", path("out/checkpoint-1"));
  EXPECT_NE(run({"inspect", "out"}, 2).err.find("leads out of its folder; give that folder itself: out/checkpoint-1\n"),
            std::string::npos);
  run({"inspect", "out/checkpoint-1"});
}

TEST_F(ModelFolders, ALinkToNothingBesideTheWeights) {
  fs::create_symlink("/nowhere", path("model/stray.safetensors"));
  auto args = train("model");
  args.insert(args.end(), {"--nproc=2", "--per_device_train_batch_size=1"});
  run(args);
}

// Only a text that cannot be a path here is taken for a name on the hub.
TEST_F(ModelFolders, ASlipInAPathIsNotDownloaded) {
  const std::vector<std::string> args = {"generate", "out/ckpt", "--ids=1"};
  EXPECT_NE(run(args, 2).err.find("hf download out/ckpt"), std::string::npos);
  fs::create_directory(path("out"));
  EXPECT_EQ(run(args, 2).err.find("hf download out/ckpt"), std::string::npos);
}

TEST_F(ModelFolders, TheUsersOwnFilesStayOutOfCheckpoints) {
  write(path("secret_token"), "secret");
  fs::create_symlink("../secret_token", path("model/NOTICE"));
  write(path("model/.env"), "KEY=secret");
  write(path("model/generation_config.json"), "{}");
  const Outcome outcome = run(train("model"));
  EXPECT_NE(outcome.err.find("model/NOTICE: is a link that leads out"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("not copied into checkpoints: .env\n"), std::string::npos) << outcome.err;
  EXPECT_FALSE(fs::exists(path("out/checkpoint-1/NOTICE")));
  EXPECT_FALSE(fs::exists(path("out/checkpoint-1/.env")));
  EXPECT_TRUE(fs::exists(path("out/checkpoint-1/generation_config.json")));
}

TEST_F(ModelFolders, AShapeThatWouldTakeAllMemory) {
  write(path("model/config.json"),
        R"({"model_type": "mixtral", "num_hidden_layers": 65536, "num_local_experts": 65536, "hidden_size": 2,
            "intermediate_size": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 4})");
  expect_refused("model", {"config.json: describes 65536 layers of 65536 experts"});
}

}  // namespace
}  // namespace mixtune
