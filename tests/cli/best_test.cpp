// Runs that know their best checkpoint, and that end where evaluations no longer become better.
#include "rank_runs.h"
#include "stored_weights.h"

namespace mixtune {
namespace {

const Args kOne = {"--per_device_train_batch_size=4"};
const Args kTwo = {"--per_device_train_batch_size=2", "--nproc=2", "--expert_model_parallel_size=2"};

class Best : public RankRuns {
 protected:
  // A learning rate at which the evaluation is best after some steps, and worse later: it is of other data.
  void SetUp() override {
    RankRuns::SetUp();
    std::string text;
    for (int i = 0; i < 8; ++i)
      text += fmt::format("{{\"input\": \"Define: heron {}\", \"output\": \"an animal that flies {} miles\"}}\n", i, i);
    write(path("others.jsonl"), text);
  }

  static Args steps(const std::string& out, const Args& more, const Args& layout = kOne) {
    Args args = {"train",
                 "--model_name_or_path=model",
                 "--train_file=data.jsonl",
                 "--validation_file=others.jsonl",
                 "--output_dir=" + out,
                 "--max_seq_length=64",
                 "--learning_rate=3e-2",
                 "--lr_scheduler_type=constant",
                 "--max_steps=40",
                 "--save_steps=2",
                 "--eval_steps=2",
                 "--resume_from_checkpoint=auto"};
    args.insert(args.end(), layout.begin(), layout.end());
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }

  // The losses of evaluations, by their step.
  std::map<int64_t, double> evaluations(const std::string& out) const {
    std::map<int64_t, double> losses;
    for (const nlohmann::json& record : metrics(out))
      if (record.contains("eval_loss")) losses[record["step"]] = record["eval_loss"];
    return losses;
  }
  static int64_t step_of_smallest(const std::map<int64_t, double>& losses) {
    return std::ranges::min_element(losses, {}, [](const auto& entry) { return entry.second; })->first;
  }
  // Where a run with this patience ends.
  static int64_t end_of(const std::map<int64_t, double>& losses, int patience) {
    double best = losses.begin()->second + 1;
    int since = 0;
    for (const auto& [step, loss] : losses) {
      since = loss < best ? 0 : since + 1;
      best = std::min(best, loss);
      if (since == patience) return step;
    }
    return 0;
  }

  std::vector<std::string> checkpoints(const std::string& out) const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(path(out)))
      if (entry.is_directory()) names.push_back(entry.path().filename());
    std::ranges::sort(names);
    return names;
  }

  // Makes a folder what a kill leaves after `step`, of the steps 2, 4, ...
  void cut_after(const std::string& out, int64_t step) const {
    for (const std::string& name : checkpoints(out))
      if (std::stoll(name.substr(11)) > step) fs::remove_all(path(out) / name);
    write(path(out + "/latest"), fmt::format("checkpoint-{}\n", step));
  }
};

TEST_F(Best, TheBestIsNamedKeptAndTaken) {
  for (const Args& layout : {kOne, kTwo}) {
    const Outcome outcome = done(steps("out", {"--load_best_model_at_end", "--save_total_limit=1"}, layout));
    const int64_t best = step_of_smallest(evaluations("out"));
    ASSERT_LT(best, 40) << "the data are to be learnt too well";
    const std::string name = fmt::format("checkpoint-{}", best);
    EXPECT_EQ(read(path("out/best")), name + "\n");
    EXPECT_EQ(read(path("out/latest")), "checkpoint-40\n");
    EXPECT_EQ(checkpoints("out"), (std::vector<std::string>{name, "checkpoint-40"}));
    expect_part(outcome.err,
                fmt::format("out: the best checkpoint is {}, eval_loss {:.6g}\n", name, evaluations("out").at(best)));
    const std::string said = fmt::format("mixtune: out: a run's folder: its best checkpoint, {}, is taken\n", name);
    for (const Args& args : {Args{"generate", "out", "--ids=1"}, Args{"export", "out", "exported"},
                             Args{"evaluate", "out", "--file=others.jsonl", "--max_seq_length=64"}})
      EXPECT_TRUE(done(args).err.starts_with(said)) << args[0];
    expect_same_weights(path("out") / name, path("exported"));
    const auto before = snapshot(path("out"));
    expect_part(done(steps("out", {"--load_best_model_at_end", "--save_total_limit=1"}, layout)).err,
                "all 40 steps are done");
    EXPECT_EQ(snapshot(path("out")), before);
    fs::remove_all(path("out"));
    fs::remove_all(path("exported"));
  }
}

TEST_F(Best, TheBestIsStillKnownAfterAResume) {
  const Args best = {"--load_best_model_at_end"};
  done(steps("whole", best));
  const auto losses = evaluations("whole");
  for (const int64_t step : {step_of_smallest(losses) - 2, step_of_smallest(losses), step_of_smallest(losses) + 4}) {
    fs::remove_all(path("out"));
    fs::copy(path("whole"), path("out"), fs::copy_options::recursive);
    cut_after("out", step);
    done(steps("out", {"--load_best_model_at_end", "--save_total_limit=1"}));
    EXPECT_EQ(read(path("out/best")), read(path("whole/best"))) << step;
    EXPECT_EQ(checkpoints("out"),
              (std::vector<std::string>{fmt::format("checkpoint-{}", step_of_smallest(losses)), "checkpoint-40"}));
  }
}

// From where the run is, though `best` says another: the newest is what goes on.
TEST_F(Best, ARunGoesOnFromItsNewest) {
  done(steps("out", {"--load_best_model_at_end"}));
  const int64_t best = step_of_smallest(evaluations("out"));
  cut_after("out", best + 4);
  EXPECT_EQ(read(path("out/best")), fmt::format("checkpoint-{}\n", best));
  Args by_name = steps("out", {"--load_best_model_at_end"});
  std::ranges::replace(by_name, "--resume_from_checkpoint=auto", "--resume_from_checkpoint=out");
  expect_part(done(by_name).err, fmt::format("the run goes on after step {}", best + 4));
}

TEST_F(Best, WithoutTheKeyThereIsNoSuchFile) {
  done(steps("out", {"--save_total_limit=1"}));
  EXPECT_FALSE(fs::exists(path("out/best")));
  EXPECT_EQ(checkpoints("out"), std::vector<std::string>{"checkpoint-40"});
}

TEST_F(Best, TheRunEndsAtTheSameStepStoppedOrNot) {
  const Args patient = {"--early_stopping_patience=3"};
  done(steps("never", {}));
  const auto losses = evaluations("never");
  const int64_t end = end_of(losses, 3);
  ASSERT_GT(end, 6);
  ASSERT_LT(end, 40);
  for (const Args& layout : {kOne, kTwo}) {
    fs::remove_all(path("whole"));
    const Outcome outcome = done(steps("whole", patient, layout));
    expect_part(outcome.err,
                fmt::format("ended early, after step {}: 3 evaluations without improvement on eval_loss {:.6g}", end,
                            losses.at(end - 6)));
    EXPECT_EQ(read(path("whole/latest")), fmt::format("checkpoint-{}\n", end));
    EXPECT_EQ(evaluations("whole").rbegin()->first, end);
  }
  done(steps("again", patient));
  for (const int64_t step : {end - 2, end - 4, end - 6}) {
    fs::remove_all(path("out"));
    fs::copy(path("again"), path("out"), fs::copy_options::recursive);
    cut_after("out", step);
    expect_part(done(steps("out", patient)).err, fmt::format("ended early, after step {}: 3 evaluations", end));
    EXPECT_EQ(evaluations("out"), evaluations("again"));
    EXPECT_EQ(read(path(fmt::format("out/checkpoint-{}/manifest.json", end))),
              read(path(fmt::format("again/checkpoint-{}/manifest.json", end))));
  }
}

// As one that has done all of its steps; with more patience it goes on.
TEST_F(Best, ARunThatEndedEarlyIsLeftAlone) {
  const Args patient = {"--early_stopping_patience=2", "--load_best_model_at_end", "--save_total_limit=1"};
  done(steps("out", patient));
  const int64_t end = evaluations("out").rbegin()->first;
  ASSERT_LT(end, 40);
  const auto before = snapshot(path("out"));
  const Outcome again = done(steps("out", patient));
  expect_part(again.err, fmt::format("the run ended early, after step {}: 2 evaluations without improvement", end));
  EXPECT_EQ(snapshot(path("out")), before);
  write(path("out/best"), fmt::format("checkpoint-{}\n", end));  // as if a kill had come before it was right
  done(steps("out", patient));
  EXPECT_EQ(snapshot(path("out")).at(path("out/best")), before.at(path("out/best")));
  done(steps("out", {}));
  EXPECT_EQ(read(path("out/latest")), "checkpoint-40\n");
}

// At a step that would not have been saved.
TEST_F(Best, AnEarlyEndIsSaved) {
  Args args = steps("out", {"--early_stopping_patience=1"});
  std::ranges::replace(args, "--save_steps=2", "--save_steps=0");
  done(args);
  const int64_t end = evaluations("out").rbegin()->first;
  ASSERT_LT(end, 40);
  EXPECT_EQ(checkpoints("out"), std::vector<std::string>{fmt::format("checkpoint-{}", end)});
}

// The model that a run begins with is evaluated, once; all else is as it is without.
TEST_F(Best, TheStartIsEvaluatedOnceAndJudgesNothing) {
  const Args patient = {"--early_stopping_patience=3", "--load_best_model_at_end"};
  const std::string said =
      done({"evaluate", "model", "--file=others.jsonl", "--max_seq_length=64", "--per_device_train_batch_size=4"}).out;
  Args on_start = patient;
  on_start.push_back("--eval_on_start");
  for (const Args& layout : {kOne, kTwo}) {
    for (const char* folder : {"without", "out"}) fs::remove_all(path(folder));
    done(steps("without", patient, layout));
    const auto losses = evaluations("without");
    const int64_t best = step_of_smallest(losses);
    done(steps("out", on_start, layout));
    auto with = evaluations("out");
    EXPECT_EQ(metrics("out")[0]["step"], 0);
    EXPECT_EQ(metrics("out")[1]["step"], 1);
    expect_part(said, fmt::format("loss        {:.5f}", with.at(0)));
    EXPECT_GT(with.at(0), losses.at(best));
    with.erase(0);
    EXPECT_EQ(with, losses);
    EXPECT_EQ(read(path("out/best")), fmt::format("checkpoint-{}\n", best));
  }
  cut_after("out", 4);
  done(steps("out", on_start, kTwo));
  const auto records = metrics("out");
  EXPECT_EQ(std::ranges::count_if(records, [](const auto& record) { return record["step"] == 0; }), 1);
  EXPECT_EQ(evaluations("out").rbegin()->first, evaluations("without").rbegin()->first);
}

TEST_F(Best, WhatCannotBeIsRefusedBeforeTheFirstStep) {
  const auto refused = [&](const Args& more, const Args& parts) {
    for (const bool dry : {false, true}) {
      Args args = steps("out", more);
      std::erase(args, "--save_steps=2");
      if (dry) args.push_back("--dry-run");
      const Outcome outcome = run(args);
      EXPECT_EQ(outcome.code, 2) << outcome.err;
      expect_one_error(outcome, parts);
      EXPECT_FALSE(fs::exists(path("out")));
    }
  };
  refused({"--load_best_model_at_end", "--save_steps=3"}, {"save_steps is 3 and eval_steps is 2", "such as 2"});
  refused({"--metric_for_best_model=accuracy"}, {"use one of: eval_loss, eval_perplexity"});
  Args none = steps("out", {"--early_stopping_patience=3", "--split=1,0,0"});
  std::erase(none, "--validation_file=others.jsonl");
  for (const bool dry : {false, true}) {
    if (dry) none.push_back("--dry-run");
    const Outcome outcome = run(none);
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    expect_one_error(outcome, {"--early_stopping_patience: needs evaluations, and no data are left for validation"});
  }
}

}  // namespace
}  // namespace mixtune
