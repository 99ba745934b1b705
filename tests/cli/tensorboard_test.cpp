// `report_to: tensorboard`: the event files have what metrics.jsonl has, of each step once.
#include <cmath>

#include "metrics/testing.h"
#include "rank_runs.h"

namespace mixtune {
namespace {

using Scalars = std::map<std::string, float>;

class Events : public RankRuns {
 protected:
  static Args reported(const std::string& out, const Args& more) {
    Args args = {"--report_to=tensorboard", "--eval_steps=2", "--save_steps=2"};
    args.insert(args.end(), more.begin(), more.end());
    return train(out, args);
  }

  std::vector<fs::path> event_files(const std::string& out) const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(path(out + "/runs"))) files.push_back(entry.path());
    std::ranges::sort(files);
    return files;
  }

  // The events with numbers, in the order in which TensorBoard reads them.
  std::vector<SeenEvent> events(const std::string& out) const {
    std::vector<SeenEvent> all;
    for (const fs::path& file : event_files(out))
      for (const SeenEvent& event : seen_events(file))
        if (!event.scalars.empty()) all.push_back(event);
    return all;
  }

  // What TensorBoard shows of a number in a record.
  static std::pair<std::string, double> shown(const std::string& name, double number, bool evaluation) {
    static const std::map<std::string, std::string> others = {{"lm_loss", "lm loss"},
                                                              {"grad_norm", "grad-norm"},
                                                              {"learning_rate", "learning-rate"},
                                                              {"model_tflops", "throughput"},
                                                              {"eval_loss", "lm loss validation"},
                                                              {"eval_perplexity", "lm loss validation ppl"}};
    if (name == "milliseconds" && !evaluation) return {"iteration-time", number / 1000};
    if (name == "milliseconds") return {"eval_milliseconds", number};
    const auto other = others.find(name);
    return {other == others.end() ? name : other->second, number};
  }

  static Scalars expected(const nlohmann::json& record) {
    Scalars scalars;
    for (const auto& [name, value] : record.items()) {
      if (name == "step" || name == "total_steps" || name == "plans" || name == "layer_expert_tokens") continue;
      if (value.is_array()) {
        for (size_t i = 0; i < value.size(); ++i) scalars[fmt::format("{}/{}", name, i)] = value[i].get<float>();
        continue;
      }
      const double number = value.is_null() ? NAN : value.get<double>();
      const auto [tag, shown_number] = shown(name, number, record.contains("eval_loss"));
      scalars[tag] = static_cast<float>(shown_number);
    }
    return scalars;
  }

  void expect_same_as_metrics(const std::string& out) const {
    const std::vector<nlohmann::json> records = metrics(out);
    const std::vector<SeenEvent> seen = events(out);
    ASSERT_EQ(seen.size(), records.size());
    for (size_t i = 0; i < records.size(); ++i) {
      EXPECT_EQ(seen[i].step, records[i]["step"]);
      const Scalars wanted = expected(records[i]);
      ASSERT_EQ(seen[i].scalars.size(), wanted.size());
      for (const auto& [tag, value] : wanted) {
        ASSERT_TRUE(seen[i].scalars.contains(tag)) << tag;
        EXPECT_FLOAT_EQ(seen[i].scalars.at(tag), value) << tag;
      }
    }
  }

  // Makes the folder what a kill after step 2 leaves of a run of four steps, in the middle of writing the fifth.
  void cut_after_two(const std::string& out) const {
    fs::remove_all(path(out + "/checkpoint-4"));
    write(path(out + "/latest"), "checkpoint-2\n");
    for (const fs::path& file : event_files(out)) write(file, read(file) + std::string("\x40\0\0\0\0\0\0\0\x12", 9));
  }
};

TEST_F(Events, HaveAllThatTheRecordsHave) {
  done(reported("one", {"--max_steps=4", "--per_device_train_batch_size=4"}));
  EXPECT_EQ(metrics("one").size(), 6u);
  expect_same_as_metrics("one");
  EXPECT_EQ(event_files("one").size(), 1u);
}

TEST_F(Events, HaveTheNumbersOfOperandsIn8Bits) {
  done(reported("eight", {"--max_steps=2", "--precision=mxfp8"}));
  expect_same_as_metrics("eight");
  EXPECT_TRUE(events("eight").at(0).scalars.contains("amax_down_gradient/0"));
  EXPECT_FALSE(events("eight").at(1).scalars.contains("amax_down_gradient/0"));
}

TEST_F(Events, HaveTheNumbersOfAllRanks) {
  if (on_gpus() && promised_gpus() < 2) GTEST_SKIP() << "needs two GPUs";
  done(reported("two",
                {"--max_steps=4", "--per_device_train_batch_size=2", "--nproc=2", "--expert_model_parallel_size=2"}));
  expect_same_as_metrics("two");
  EXPECT_TRUE(events("two").at(0).scalars.contains("rank_tokens/1"));
  EXPECT_TRUE(events("two").at(0).scalars.contains("expert_tokens/1"));
}

TEST_F(Events, AreOnlyWrittenWhereAskedFor) {
  done(train("out", {"--max_steps=1"}));
  EXPECT_FALSE(fs::exists(path("out/runs")));
}

TEST_F(Events, GoOnWithoutAStepTwice) {
  const Args four = reported("out", {"--max_steps=4", "--per_device_train_batch_size=4"});
  done(four);
  cut_after_two("out");
  EXPECT_THROW(events("out"), std::runtime_error);
  const std::string theirs = "events.out.tfevents.1000000000.theirs";
  write(path("out/runs") / theirs, "theirs");
  Args again = four;
  again.push_back("--resume_from_checkpoint=auto");
  done(again);
  EXPECT_EQ(read(path("out/runs") / theirs), "theirs");
  fs::remove(path("out/runs") / theirs);
  EXPECT_EQ(event_files("out").size(), 2u);
  expect_same_as_metrics("out");
  for (const size_t file : {0, 1}) {
    const SeenEvent session = seen_events(event_files("out")[file]).at(1);
    EXPECT_TRUE(session.begins);
    EXPECT_EQ(session.step, file == 0 ? 1 : 3);
  }
  // Without the key they are cut all the same.
  cut_after_two("out");
  again.push_back("--report_to=none");
  std::erase(again, "--report_to=tensorboard");
  done(again);
  std::vector<int64_t> steps;
  for (const SeenEvent& event : events("out")) steps.push_back(event.step);
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 2, 2}));
}

// Killed as soon as it has saved a few times, wherever that is, and again.
TEST_F(Events, AfterKills) {
  Args args = reported("out", {"--max_steps=300", "--per_device_train_batch_size=1", "--resume_from_checkpoint=auto"});
  args.insert(args.end(), {"--save_steps=20", "--eval_steps=30", "--save_total_limit=2"});
  std::erase_if(args, [](const std::string& arg) { return arg == "--save_steps=2" || arg == "--eval_steps=2"; });
  for (const size_t records : {50, 150}) {
    auto killed = std::async(std::launch::async, [&] { return run(args); });
    EXPECT_TRUE(comes_true([&] {
      return fs::exists(path("out/metrics.jsonl")) && lines_of(read(path("out/metrics.jsonl"))).size() > records;
    }));
    for (const auto& [rank, process] : processes()) kill(process, SIGKILL);
    EXPECT_NE(killed.get().code, 0);
  }
  done(args);
  EXPECT_GT(event_files("out").size(), 1u);
  expect_same_as_metrics("out");
  EXPECT_EQ(metrics("out").size(), 310u);
}

TEST_F(Events, AreReplacedOnlyWhereAskedFor) {
  const Args one = reported("out", {"--max_steps=1"});
  done(one);
  const auto before = snapshot(path("out"));
  expect_one_error(run(one), {"holds the results of another run", "overwrite_output_dir: true"});
  EXPECT_EQ(snapshot(path("out")), before);
  Args again = one;
  again.push_back("--overwrite_output_dir");
  done(again);
  EXPECT_EQ(event_files("out").size(), 1u);
  expect_same_as_metrics("out");
}

TEST_F(Events, AFolderThatCannotBeWrittenIsRefusedAtOnce) {
  fs::create_directory(path("out"));
  write(path("out/runs"), "theirs");
  const auto before = snapshot(path("out"));
  const Outcome outcome = run(reported("out", {"--max_steps=1"}));
  EXPECT_EQ(outcome.code, 2);
  expect_one_error(outcome, {"out/runs: is no folder", "report_to: none"});
  EXPECT_EQ(snapshot(path("out")), before);
}

TEST_F(Events, OtherTrackersAreRefusedWithWhatThereIs) {
  for (const auto& [tracker, hint] : std::map<std::string, std::string>{
           {"wandb", "'scripts/send_metrics.py' sends every step there (docs/other-trackers.md)"},
           {"mlflow", "'scripts/send_metrics.py' sends every step there"},
           {"comet_ml", "'metrics.jsonl' in 'output_dir' has every step"},
           {"tensorbord", "did you mean 'tensorboard'?"}}) {
    const Outcome outcome = run(train("out", {"--report_to=" + tracker}));
    EXPECT_EQ(outcome.code, 2);
    expect_one_error(outcome, {"--report_to: unknown value", hint});
  }
}

}  // namespace
}  // namespace mixtune
