// `mixtune inspect --verify`: which bytes of a checkpoint are not those that were written.
#include "rank_runs.h"

namespace mixtune {
namespace {

class VerifyCheckpoints : public RankRuns {
 protected:
  // A run of two ranks, its checkpoint in several files.
  void SetUp() override {
    RankRuns::SetUp();
    done(train("out", {"--max_steps=1", "--per_device_train_batch_size=2", "--max_shard_size=100KB"}));
  }

  void flip(const std::string& name, int64_t from_end) const {
    std::string content = read(path(name));
    content.at(content.size() - from_end) = static_cast<char>(content.at(content.size() - from_end) ^ 16);
    write(path(name), content);
  }

  // The name of the tensor that a file ends with.
  std::string last_tensor(const std::string& name) const {
    const std::string bytes = read(path(name));
    uint64_t size = 0;
    std::memcpy(&size, bytes.data(), sizeof(size));
    std::pair<uint64_t, std::string> last;
    const nlohmann::json header = nlohmann::json::parse(bytes.substr(sizeof(size), size));
    for (const auto& [tensor, entry] : header.items())
      if (tensor != "__metadata__") last = std::max(last, std::pair(entry["data_offsets"][1].get<uint64_t>(), tensor));
    return last.second;
  }

  Outcome verified(const std::string& folder, int code) const {
    Outcome outcome = run({"inspect", folder, "--verify"});
    EXPECT_EQ(outcome.code, code) << outcome.err;
    return outcome;
  }
};

TEST_F(VerifyCheckpoints, AllIsAsWritten) {
  for (const char* folder : {"out", "out/checkpoint-1", "out/checkpoint-1/"}) {
    const Outcome outcome = verified(folder, 0);
    EXPECT_TRUE(outcome.out.ends_with(": all as written\n")) << outcome.out;
    EXPECT_EQ(lines_of(outcome.out).size(), 1u);
  }
}

TEST_F(VerifyCheckpoints, AFlippedByteIsNamedByItsTensor) {
  for (const std::string file : {"model-00001-of-00003.safetensors", "state/rank-00000-00001.safetensors"}) {
    const std::string whole = "out/checkpoint-1/" + file;
    flip(whole, 1);
    const Outcome outcome = verified("out/checkpoint-1", 2);
    expect_one_error(outcome, {file + ": tensor " + last_tensor(whole) + ": its bytes are not", "XXH3"});
    EXPECT_EQ(outcome.out, "");
    flip(whole, 1);
  }
  verified("out", 0);
}

TEST_F(VerifyCheckpoints, EveryFaultHasALine) {
  flip("out/checkpoint-1/config.json", 2);
  fs::remove(path("out/checkpoint-1/state/index.json"));
  fs::resize_file(path("out/checkpoint-1/model-00002-of-00003.safetensors"), 1000);
  std::string header = read(path("out/checkpoint-1/model-00001-of-00003.safetensors"));
  header[8] = ' ';
  write(path("out/checkpoint-1/model-00001-of-00003.safetensors"), header);
  write(path("out/checkpoint-1/notes.txt"), "mine");
  const Outcome outcome = verified("out/checkpoint-1", 2);
  const std::vector<std::string> lines = lines_of(outcome.err);
  ASSERT_EQ(lines.size(), 5u) << outcome.err;
  expect_part(lines[0], "mixtune: warning: out/checkpoint-1: notes.txt was not written with the checkpoint");
  expect_part(lines[1], "mixtune: error: out/checkpoint-1/config.json: its bytes are not");
  expect_part(lines[2], "model-00001-of-00003.safetensors: its header is not");
  expect_part(lines[3], "model-00002-of-00003.safetensors: has 1000 bytes, ");
  expect_part(lines[4], "state/index.json: is missing");
}

TEST_F(VerifyCheckpoints, WhatHasNoDigestsIsRefused) {
  expect_one_error(verified("model", 2), {"model: has no manifest.json", "save_only_model"});
  expect_one_error(verified("data.jsonl", 2), {"--verify", "'data.jsonl' is no folder"});
  write(path("out/checkpoint-1/manifest.json"), "[1");
  expect_one_error(verified("out", 2), {"manifest.json: "});
}

}  // namespace
}  // namespace mixtune
