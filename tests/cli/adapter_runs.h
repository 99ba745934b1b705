// Runs that train adapters, for tests of the program.
#pragma once

#include <cstring>

#include "rank_runs.h"
#include "stored_weights.h"

namespace mixtune {

inline const std::string kAdapterFile = "adapter_model.safetensors";

class Adapters : public RankRuns {
 protected:
  static Args with(Args args, const Args& more) {
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }

  // Four steps, saved after the second.
  static Args four_steps(const std::string& out, const Args& more) {
    Args args = with({"--max_steps=4", "--save_steps=2", "--packing"}, more);
    if (on_gpus()) args.push_back("--deterministic");
    return train(out, args);
  }
  static Args lora(const std::string& out, const Args& more = {"--per_device_train_batch_size=4"}) {
    return four_steps(out, with({"--adapter=lora", "--lora_r=8"}, more));
  }

  static Args qlora(const std::string& out, const Args& more = {"--per_device_train_batch_size=4"}) {
    return four_steps(out, with({"--adapter=qlora", "--lora_r=8"}, more));
  }

  // Those that this machine has: a rank has a GPU to itself.
  static std::vector<Args> layouts() {
    const Args alone = {"--per_device_train_batch_size=4"}, two = {"--nproc=2", "--per_device_train_batch_size=2"},
               by_experts = with(two, {"--expert_model_parallel_size=2"});
    if (!on_gpus()) return {alone, two, with(two, {"--zero_stage=0"}), by_experts};
    return promised_gpus() > 1 ? std::vector<Args>{alone, by_experts} : std::vector<Args>{alone};
  }

  // The JSON that a safetensors file begins with: its tensors, in their order and where they lie.
  std::string header(const std::string& file) const {
    const std::string bytes = read(path(file));
    uint64_t size = 0;
    std::memcpy(&size, bytes.data(), sizeof(size));
    return bytes.substr(sizeof(size), size);
  }

  void flip_last_byte(const std::string& file) const {
    std::string bytes = read(path(file));
    bytes.back() = static_cast<char>(bytes.back() ^ 1);
    write(path(file), bytes);
  }

  // Makes a folder what a stop after the second step leaves of a finished run.
  void cut(const std::string& out) const {
    fs::remove_all(path(out + "/checkpoint-4"));
    write(path(out + "/latest"), "checkpoint-2\n");
  }

  std::vector<float> logits_of(const Args& model) const {
    const TempFolder folder;
    done(with(with({"generate"}, model),
              {"--ids=1,5,9,13", "--max-new-tokens=1", "--logits=" + (folder.path() / "logits.safetensors").string()}));
    return weights_in(folder.path()).at("logits").values;
  }

  // Expects one line, and that nothing is written.
  void expect_refused(const Args& args, const Args& parts) const {
    const auto before = snapshot(path("."));
    const Outcome outcome = run(args);
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    expect_one_error(outcome, parts);
    EXPECT_TRUE(snapshot(path(".")) == before) << outcome.err;
  }
};

}  // namespace mixtune
