// Learning rates that a configuration asks for, in the records of a run.
#include <gmock/gmock.h>

#include "rank_runs.h"
#include "stored_weights.h"

namespace mixtune {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;

class Schedules : public RankRuns {
 protected:
  Outcome trained(const std::string& schedule, const Args& more) const {
    write(path("run.yaml"),
          "max_steps: 6\nsave_steps: 3\nwarmup_steps: 2\nper_device_train_batch_size: 4\n" + schedule +
              "model_name_or_path: model\ntrain_file: data.jsonl\noutput_dir: out\nmax_seq_length: 64\n"
              "learning_rate: 1e-3\n");
    Args args = {"train", "run.yaml"};
    args.insert(args.end(), more.begin(), more.end());
    if (on_gpus()) args.push_back("--device=cuda");
    return run(args);
  }
  std::vector<double> rates() const {
    std::vector<double> rates;
    for (const nlohmann::json& record : metrics("out"))
      if (record.contains("learning_rate")) rates.push_back(record["learning_rate"]);
    return rates;
  }
};

const std::string kStages =
    "lr_scheduler_type: warmup_stable_decay\nlr_scheduler_kwargs:\n  num_decay_steps: 2\n  decay_type: linear\n";

TEST_F(Schedules, AreTheRunsAndStayIts) {
  EXPECT_EQ(trained(kStages, {}).code, 0);
  const auto stages = ElementsAre(0, DoubleNear(5e-4, 1e-12), DoubleNear(1e-3, 1e-12), DoubleNear(1e-3, 1e-12),
                                  DoubleNear(1e-3, 1e-12), DoubleNear(5e-4, 1e-12));
  EXPECT_THAT(rates(), stages);
  fs::remove_all(path("out/checkpoint-6"));
  write(path("out/latest"), "checkpoint-3\n");
  const Outcome other = trained(kStages + "  min_lr_ratio: 0.1\n", {"--resume_from_checkpoint=auto"});
  EXPECT_EQ(other.code, 2);
  expect_one_error(other, {"lr_scheduler_kwargs was {\"decay_type\": \"linear\", \"num_decay_steps\": 2}, is {",
                           "--allow_changes lr_scheduler_kwargs"});
  EXPECT_EQ(trained(kStages, {"--resume_from_checkpoint=auto"}).code, 0);
  EXPECT_THAT(rates(), stages);
}

TEST_F(Schedules, LongerThanTheRunAreRefused) {
  for (const char* how : {"--dry-run", "--logging_steps=2"}) {
    const Outcome outcome =
        trained("lr_scheduler_type: warmup_stable_decay\n", {"--lr_scheduler_kwargs={\"num_decay_steps\": 5}", how});
    EXPECT_EQ(outcome.code, 2);
    expect_one_error(outcome, {"--lr_scheduler_kwargs: 2 steps of warm-up, 0 stable and 5 of decay are 7, but the run "
                               "has 6; lower num_decay_steps"});
    EXPECT_FALSE(fs::exists(path("out")));
  }
}

TEST_F(Schedules, OfOneGroupMovesItAlone) {
  const auto before = weights_in(path("model"));
  for (const Args& layout : {Args{}, Args{"--nproc=2", "--expert_model_parallel_size=2"}, Args{"--nproc=2"}}) {
    Args more = {"--overwrite_output_dir", "--learning_rate=0", "--lr_groups={router: 1e-2}"};
    more.insert(more.end(), layout.begin(), layout.end());
    const Outcome outcome = trained("", more);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    for (const auto& [name, stored] : weights_in(path("out/checkpoint-6")))
      EXPECT_EQ(stored.values != before.at(name).values, name.find(".gate.") != name.npos) << name;
    EXPECT_THAT(rates(), testing::Each(0));  // the base one
  }
}

TEST_F(Schedules, OfAHeadThatIsTheEmbeddingsIsRefused) {
  auto config = nlohmann::json::parse(read(path("model/config.json")));
  config["tie_word_embeddings"] = true;
  write(path("model/config.json"), config.dump());
  for (const char* how : {"--dry-run", "--logging_steps=2"}) {
    const Outcome outcome = trained("lr_groups: {head: 1e-4}\n", {how});
    EXPECT_EQ(outcome.code, 2);
    expect_one_error(outcome, {"run.yaml:5: lr_groups: head: the model's head has no weights of its own"});
  }
}

}  // namespace
}  // namespace mixtune
