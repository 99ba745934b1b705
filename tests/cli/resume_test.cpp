// `--resume_from_checkpoint`: a run that was stopped ends as one that never was.
#include <csignal>
#include <future>

#include "rank_runs.h"
#include "stored_weights.h"

namespace mixtune {
namespace {

const Args kOne = {"--per_device_train_batch_size=4"};
const Args kFour = {"--nproc=4", "--expert_model_parallel_size=2", "--per_device_train_batch_size=1"};
const Args kTwo = {"--nproc=2", "--zero_stage=0", "--per_device_train_batch_size=2"};
const Args kTwoSharded = {"--nproc=2", "--zero_stage=1", "--per_device_train_batch_size=2"};
const Args kTwoByExperts = {"--nproc=2", "--expert_model_parallel_size=2", "--per_device_train_batch_size=2"};

// Those that this machine has: a rank has a GPU to itself.
std::vector<Args> layouts() {
  if (!on_gpus()) return {kOne, kFour, kTwo};
  return promised_gpus() > 1 ? std::vector<Args>{kOne, kTwoByExperts, kTwo} : std::vector<Args>{kOne};
}

class Resume : public RankRuns {
 protected:
  // Six steps, saved and evaluated after each second one, in the layout `more`.
  static Args six_steps(const std::string& out, const Args& layout, const Args& more = {}, int steps = 6) {
    Args args = {fmt::format("--max_steps={}", steps), "--save_steps=2", "--eval_steps=2", "--packing"};
    args.insert(args.end(), layout.begin(), layout.end());
    args.insert(args.end(), more.begin(), more.end());
    return repeatable(out, args);
  }

  // A run that gives the same bits each time.
  static Args repeatable(const std::string& out, Args args) {
    if (on_gpus()) args.push_back("--deterministic");
    return train(out, args);
  }

  // Makes a folder what a kill after `step` leaves of a finished run: records of later steps, too, and half a line.
  void cut_after(const std::string& out, int step) const {
    for (int later = step + 2; later <= 6; later += 2) fs::remove_all(path(out + fmt::format("/checkpoint-{}", later)));
    write(path(out + "/latest"), fmt::format("checkpoint-{}\n", step));
    write(path(out + "/metrics.jsonl"), read(path(out + "/metrics.jsonl")) + "{\"step\":6,\"lo");
  }

  static Args six_steps_again(const std::string& out, const Args& layout, const Args& more = {}) {
    Args args = six_steps(out, layout, more);
    args.push_back("--resume_from_checkpoint=auto");
    return args;
  }

  Outcome resumed(const std::string& out, const Args& layout, const Args& more = {}) const {
    return run(six_steps_again(out, layout, more));
  }

  // The records, less what depends on the machine.
  std::vector<nlohmann::json> untimed(const std::string& out) const {
    std::vector<nlohmann::json> records = metrics(out);
    for (nlohmann::json& record : records)
      for (const char* field : {"milliseconds", "tokens_per_second", "model_tflops", "memory_gib", "plans"})
        record.erase(field);
    return records;
  }

  void expect_refused(const Args& layout, const Args& more, const Args& parts) const {
    const auto before = snapshot(path("out"));
    const Outcome outcome = resumed("out", layout, more);
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    expect_one_error(outcome, parts);
    EXPECT_EQ(snapshot(path("out")), before);
  }
};

TEST_F(Resume, EndsInTheSameBits) {
  // Saved as bf16, the weights themselves are a part of the state.
  const Args narrow = {"--per_device_train_batch_size=4", "--save_dtype=bf16"};
  const Args accumulated = {"--per_device_train_batch_size=2", "--gradient_accumulation_steps=2"};
  std::vector<Args> all = layouts();
  all.insert(all.end(), {narrow, accumulated});
  if (on_gpus()) all.push_back({"--per_device_train_batch_size=4", "--precision=bf16", "--save_dtype=bf16"});
  for (const Args& layout : all) {
    const std::string name = fmt::format("-{}", fmt::join(layout, ""));
    const std::string whole = "whole" + name, cut = "cut" + name;
    done(six_steps(whole, layout));
    done(six_steps(cut, layout));
    cut_after(cut, 2);
    const Outcome outcome = resumed(cut, layout);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    expect_part(outcome.err, "checkpoint-2: the run goes on after step 2");
    EXPECT_EQ(read(path(cut + "/latest")), "checkpoint-6\n");
    if (layout.size() < 3) {
      EXPECT_EQ(untimed(cut), untimed(whole));
    }
    expect_same_metrics(whole, cut);
    for (const int step : {4, 6}) {
      const std::string folder = fmt::format("/checkpoint-{}", step);
      const auto expected = snapshot(path(whole + folder)), found = snapshot(path(cut + folder));
      ASSERT_EQ(found.size(), expected.size());
      for (auto a = expected.begin(), b = found.begin(); a != expected.end(); ++a, ++b) {
        EXPECT_EQ(fs::relative(b->first, path(cut)), fs::relative(a->first, path(whole)));
        EXPECT_TRUE(a->second == b->second) << b->first << " differs";
      }
    }
  }
}

TEST_F(Resume, AnyLayoutGoesOnFromAnyOther) {
  done(six_steps("whole", kOne));
  for (const Args& wrote : layouts()) {
    done(six_steps("written", wrote));
    for (const Args& goes_on : layouts()) {
      if (goes_on == wrote) continue;
      fs::remove_all(path("out"));
      fs::copy(path("written"), path("out"), fs::copy_options::recursive);
      cut_after("out", 4);
      const Outcome outcome = resumed("out", goes_on);
      ASSERT_EQ(outcome.code, 0) << outcome.err;
      expect_same_metrics("whole", "out");
      expect_same_weights(path("whole/checkpoint-6"), path("out/checkpoint-6"));
    }
    fs::remove_all(path("written"));
  }
}

// Killed as soon as it has saved a few times, wherever that is.
TEST_F(Resume, AfterAKill) {
  const auto many = [&](const std::string& out) {
    return repeatable(
        out, {"--max_steps=400", "--save_steps=20", "--save_total_limit=2", "--per_device_train_batch_size=1"});
  };
  done(many("whole"));
  auto killed = std::async(std::launch::async, [&] { return run(many("out")); });
  EXPECT_TRUE(comes_true([&] { return lines_of(read(path("out/metrics.jsonl"))).size() > 50; }));
  for (const auto& [rank, process] : processes()) kill(process, SIGKILL);
  EXPECT_NE(killed.get().code, 0);
  Args again = many("out");
  again.push_back("--resume_from_checkpoint=auto");
  done(again);
  EXPECT_EQ(untimed("out"), untimed("whole"));
  const auto whole = weights_in(path("whole/checkpoint-400")), out = weights_in(path("out/checkpoint-400"));
  for (const auto& [name, stored] : whole) EXPECT_EQ(out.at(name).values, stored.values) << name;
}

TEST_F(Resume, WithoutACheckpointTheRunBegins) {
  const Outcome first = resumed("out", kOne);
  EXPECT_EQ(first.code, 0) << first.err;
  expect_part(first.err, "no checkpoint to go on from: the run begins");
  const std::vector<nlohmann::json> records = untimed("out");
  for (const int step : {2, 4, 6}) fs::remove_all(path(fmt::format("out/checkpoint-{}", step)));
  fs::remove(path("out/latest"));  // as if it was killed before its first
  const Outcome again = resumed("out", kOne);
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(untimed("out"), records);
}

TEST_F(Resume, AFinishedRunIsLeftAlone) {
  done(six_steps("out", kOne));
  const auto before = snapshot(path("out"));
  const Outcome outcome = resumed("out", kOne);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  expect_part(outcome.err, "all 6 steps are done");
  EXPECT_EQ(snapshot(path("out")), before);
}

TEST_F(Resume, AnotherRunIsRefusedAndToldWhatDiffers) {
  done(six_steps("out", kOne));
  cut_after("out", 4);
  expect_refused(
      kOne, {"--seed=7", "--weight_decay=0.5"},
      {"seed was 42, is 7", "weight_decay was 0, is 0.5", "--allow_changes seed --allow_changes weight_decay"});
  expect_refused(kFour, {"--gradient_accumulation_steps=2"}, {"rows_per_step was 4, is 8"});
  expect_refused(kOne, {"--router_aux_loss_coef=0.5"}, {"router_aux_loss_coef was 0.02, is 0.5"});
  expect_refused(kOne, {"--moe_z_loss_coeff=0.5"}, {"router_losses was none, is z 0.5"});
  Args longer = six_steps("out", kOne, {}, 7);
  longer.push_back("--resume_from_checkpoint=auto");
  expect_one_error(run(longer), {"total_steps was 6, is 7", "--allow_changes total_steps"});
  write(path("data.jsonl"), read(path("data.jsonl")) + "{\"input\": \"one\", \"output\": \"more\"}\n");
  expect_refused(kOne, {}, {"data was"});
  const Outcome allowed =
      resumed("out", kOne, {"--allow_changes", "data", "--allow_changes", "weight_decay", "--weight_decay=0.5"});
  EXPECT_EQ(allowed.code, 0) << allowed.err;
}

TEST_F(Resume, ACheckpointOfAnotherModelIsRefused) {
  done(six_steps("out", kOne));
  cut_after("out", 4);
  const std::string config = read(path("model/config.json"));
  const auto size = nlohmann::json::parse(config).at("intermediate_size").get<int>();
  const size_t at = config.find("\"intermediate_size\"");
  std::string other = config;
  write(path("model/config.json"), other.replace(config.find(std::to_string(size), at), 1, "9"));
  expect_refused(kOne, {}, {"--model_name_or_path: has intermediate_size 9", fmt::format("has {}: it is of", size)});
}

// Its own resolved configuration, whose coefficient and template are no longer to be found out.
TEST_F(Resume, WithTheConfigurationThatItWrote) {
  done(six_steps("out", kOne));
  cut_after("out", 4);
  const Outcome outcome = run({"train", "out/config.resolved.yaml", "--resume_from_checkpoint=auto"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(metrics("out").size(), 9u);
}

// The model that the run began with, and its own, are no longer needed.
TEST_F(Resume, WithoutTheModelThatItBeganWith) {
  done(six_steps("out", kOne));
  cut_after("out", 4);
  fs::remove_all(path("model"));
  EXPECT_EQ(resumed("out", kOne).code, 0);
}

TEST_F(Resume, ALatestThatAKillLeftBehindIsMended) {
  done(six_steps("out", kOne));
  write(path("out/latest"), "checkpoint-4\n");
  const Outcome outcome = resumed("out", kOne);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(read(path("out/latest")), "checkpoint-6\n");
}

TEST_F(Resume, ThroughALinkTheCheckpointIsStillTheRuns) {
  done(six_steps("out", kOne));
  fs::create_directory_symlink("checkpoint-4", path("out/best"));
  Args args = six_steps("out", kOne);
  args.insert(args.end(), {"--resume_from_checkpoint=out/best", "--overwrite_output_dir"});
  done(args);
  EXPECT_TRUE(fs::exists(path("out/checkpoint-2/manifest.json")));
  EXPECT_EQ(metrics("out").size(), 9u);
}

TEST_F(Resume, FromAFolderIntoAnother) {
  done(six_steps("whole", kOne));
  Args args = six_steps("out", kOne);
  args.push_back("--resume_from_checkpoint=whole/checkpoint-4");
  done(args);
  EXPECT_EQ(metrics("out")[0]["step"], 5);
  expect_same_weights(path("whole/checkpoint-6"), path("out/checkpoint-6"));
}

TEST_F(Resume, NewerCheckpointsAreNotLostUnasked) {
  done(six_steps("out", kOne));
  const auto from_two = [&](const Args& more) {
    Args args = six_steps("out", kOne, more);
    args.push_back("--resume_from_checkpoint=out/checkpoint-2");
    return run(args);
  };
  const Outcome refused = from_two({});
  EXPECT_EQ(refused.code, 2);
  expect_one_error(refused, {"holds checkpoint-4, newer than checkpoint-2", "overwrite_output_dir: true"});
  const Outcome outcome = from_two({"--overwrite_output_dir"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(metrics("out").size(), 9u);
  EXPECT_TRUE(fs::exists(path("out/checkpoint-2/manifest.json")));
}

TEST_F(Resume, WhatIsNotWholeIsPassedOver) {
  done(six_steps("whole", kOne));
  const auto expect_passed_over = [&](const std::string& why) {
    const Outcome outcome = resumed("out", kOne);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    expect_part(outcome.err, why);
    expect_part(outcome.err, "checkpoint-4: the run goes on after step 4");
    expect_part(outcome.err, "checkpoint-6 is not whole: it is now ");
    expect_same_weights(path("whole/checkpoint-6"), path("out/checkpoint-6"));
    fs::remove_all(path("out"));
  };
  fs::copy(path("whole"), path("out"), fs::copy_options::recursive);
  fs::resize_file(path("out/checkpoint-6/state/rank-00000-00001.safetensors"), 100);
  expect_passed_over("rank-00000-00001.safetensors: has 100 bytes");
  fs::copy(path("whole"), path("out"), fs::copy_options::recursive);
  std::string text = read(path("out/checkpoint-6/config.json"));
  text.replace(text.find("10000.0"), 5, "20000");
  write(path("out/checkpoint-6/config.json"), text);
  expect_passed_over("checkpoint-6/config.json: its bytes are not those that were written (XXH3 ");
}

// What a disk or a copy did to weights, moments, and weights that state/ has finer; in parts that several ranks read.
TEST_F(Resume, AFlippedByteIsNamedByEveryLayout) {
  const Args bf16 = {"--save_dtype=bf16"};
  for (const auto& [wrote, goes_on] : std::vector<std::pair<Args, Args>>{
           {kFour, kOne}, {kOne, kTwoByExperts}, {kOne, kTwoSharded}, {kFour, kTwoSharded}}) {
    if (on_gpus() && promised_gpus() < 4) GTEST_SKIP() << "a layout of four ranks needs as many GPUs";
    done(six_steps("out", wrote, bf16));
    cut_after("out", 2);
    for (const std::string tensor :
         {"model.embed_tokens.weight", "model.layers.0.block_sparse_moe.experts.1.w2.weight"})
      for (const std::string kind : {"", ".weight", ".exp_avg", ".exp_avg_sq"}) {
        const StoredPlace place = find_entry(path("out/checkpoint-2"), tensor + kind);
        SCOPED_TRACE(fmt::format("{} of {}, {}", place.entry, place.file.string(), fmt::join(goes_on, " ")));
        const std::string sound = read(place.file);
        std::string flipped = sound;
        flipped.at(place.last) = static_cast<char>(flipped.at(place.last) ^ 1);
        write(place.file, flipped);
        expect_refused(goes_on, bf16,
                       {fs::relative(place.file, path(".")).string() + ": tensor " + place.entry +
                            ": its bytes are not those that were written (XXH3 ",
                        "; resume from another checkpoint, or get the file from a copy of this one"});
        write(place.file, sound);
      }
    done(six_steps_again("out", goes_on, bf16));
    fs::remove_all(path("out"));
  }
}

// Which of two ranks sees it first, as what it is or as another digest, is not said.
TEST_F(Resume, ANaNInATensorOfSeveralRanksHasOneLine) {
  done(six_steps("out", kOne));
  cut_after("out", 2);
  const StoredPlace place = find_entry(path("out/checkpoint-2"), "model.embed_tokens.weight");
  std::string damaged = read(place.file);
  damaged.replace(place.last, 4, "\xff\xff\xff\xff");
  write(place.file, damaged);
  for (int i = 0; i < 4; ++i) expect_refused(kTwoSharded, {}, {place.file.filename(), "model.embed_tokens.weight"});
}

TEST_F(Resume, WhereNoneIsWholeNothingIsReplacedUnasked) {
  done(six_steps("out", kOne));
  for (const int step : {2, 4, 6}) fs::resize_file(path(fmt::format("out/checkpoint-{}/config.json", step)), 1);
  expect_refused(kOne, {}, {"no checkpoint of out can be gone on from", "checkpoint-6/config.json: has 1 bytes"});
}

TEST_F(Resume, AModelAloneCannotGoOn) {
  done(six_steps("out", kOne, {"--save_only_model"}));
  EXPECT_FALSE(fs::exists(path("out/checkpoint-2/state")));
  Args args = six_steps("out", kOne);
  args.push_back("--resume_from_checkpoint=out");
  const Outcome outcome = run(args);
  EXPECT_EQ(outcome.code, 2);
  expect_one_error(outcome, {"checkpoint-6: has no manifest.json", "model_name_or_path"});
}

}  // namespace
}  // namespace mixtune
