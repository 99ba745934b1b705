// Several validation sets by name: each is evaluated by itself, and one may decide.
#include "rank_runs.h"

namespace mixtune {
namespace {

class NamedValidation : public RankRuns {
 protected:
  void SetUp() override {
    RankRuns::SetUp();
    std::string text;
    for (int i = 0; i < 6; ++i)
      text += fmt::format("{{\"input\": \"Name {}\", \"output\": \"a bird {}\"}}\n", i, i * i);
    write(path("birds.jsonl"), text);
  }

  // Four steps, evaluated after each second one.
  static Args four_steps(const std::string& out, const std::string& validation, const Args& more = {}) {
    Args args = {"train",
                 "--model_name_or_path=model",
                 "--train_file=data.jsonl",
                 "--output_dir=" + out,
                 "--validation_file=" + validation,
                 "--max_steps=4",
                 "--eval_steps=2",
                 "--save_steps=2",
                 "--eval_on_start",
                 "--per_device_train_batch_size=2",
                 "--max_seq_length=64",
                 "--learning_rate=1e-3"};
    args.insert(args.end(), more.begin(), more.end());
    if (on_gpus()) args.insert(args.end(), {"--device=cuda", "--deterministic"});
    return args;
  }

  // The evaluations of a run by step, those that have `field`.
  std::map<int, double> of(const std::string& out, const std::string& field) const {
    std::map<int, double> values;
    for (const nlohmann::json& record : metrics(out))
      if (record.contains(field)) values[record["step"]] = record[field];
    return values;
  }
};

const std::string kBoth = "{otters: data.jsonl, birds: birds.jsonl}";

TEST_F(NamedValidation, EachIsWhatItIsAlone) {
  done(four_steps("otters", "data.jsonl"));
  done(four_steps("birds", "birds.jsonl"));
  const Outcome outcome = done(four_steps("both", kBoth));
  for (const char* name : {"otters", "birds"}) {
    for (const char* number : {"loss", "perplexity", "tokens"}) {
      const auto alone = of(name, fmt::format("eval_{}", number)),
                 both = of("both", fmt::format("eval_{}_{}", name, number));
      EXPECT_EQ(alone.size(), 3u);
      EXPECT_EQ(both, alone) << name << ' ' << number;
    }
    expect_part(outcome.out, fmt::format("step 2/4  evaluation of {}: lm ", name));
    expect_part(outcome.out, fmt::format("\nevaluations of {}: before training lm ", name));
  }
  EXPECT_TRUE(of("both", "eval_loss").empty());
  EXPECT_NE(of("both", "eval_otters_loss"), of("both", "eval_birds_loss"));
  const auto manifest = nlohmann::json::parse(read(path("both/checkpoint-2/manifest.json")));
  EXPECT_EQ(manifest["evaluation"]["eval_birds_loss"], of("both", "eval_birds_loss").at(2));
  EXPECT_EQ(manifest["evaluation"].size(), 4u);
}

TEST_F(NamedValidation, OnTwoRanksToo) {
  if (on_gpus() && promised_gpus() < 2) GTEST_SKIP() << "needs two GPUs";
  done(four_steps("alone", kBoth));
  Args args = four_steps("two", kBoth, {"--nproc=2", "--expert_model_parallel_size=2"});
  std::ranges::replace(args, std::string("--per_device_train_batch_size=2"), "--per_device_train_batch_size=1");
  done(args);
  for (const char* field : {"eval_otters_loss", "eval_birds_loss"}) {
    const auto alone = of("alone", field), two = of("two", field);
    ASSERT_EQ(two.size(), alone.size());
    for (const auto& [step, loss] : alone) EXPECT_NEAR(two.at(step), loss, 1e-5) << field;
  }
}

TEST_F(NamedValidation, OneDecides) {
  const Args best = {"--load_best_model_at_end", "--metric_for_best_model=eval_birds_loss"};
  const Outcome outcome = done(four_steps("out", kBoth, best));
  const auto losses = of("out", "eval_birds_loss");
  const int step = losses.at(2) <= losses.at(4) ? 2 : 4;
  EXPECT_EQ(read(path("out/best")), fmt::format("checkpoint-{}\n", step));
  expect_part(outcome.err, fmt::format("the best checkpoint is checkpoint-{}, eval_birds_loss ", step));
}

TEST_F(NamedValidation, WhichDecidesMustBeSaid) {
  const auto refused = [&](const std::string& validation, const Args& more, const Args& parts) {
    const Outcome outcome = run(four_steps("out", validation, more));
    EXPECT_EQ(outcome.code, 2);
    expect_one_error(outcome, parts);
    EXPECT_FALSE(fs::exists(path("out")));
  };
  refused(
      kBoth, {"--load_best_model_at_end"},
      {"--load_best_model_at_end: ", "set metric_for_best_model to one of: eval_birds_loss, eval_birds_perplexity"});
  refused(kBoth, {"--metric_for_best_model=birds_loss"}, {"use 'eval_birds_loss'"});
  refused("{otters: data.jsonl, birds: none.jsonl}", {}, {"--validation_file: birds: ", "none.jsonl"});
  refused("{'a b': data.jsonl}", {}, {"'a b' is no name of a set"});
}

TEST_F(NamedValidation, TheResolvedConfigurationReadsBack) {
  done(four_steps("out", kBoth));
  const Outcome dry = done({"train", "out/config.resolved.yaml", "--output_dir=other", "--dry-run"});
  expect_part(dry.out, "# validation, birds: 6 documents, ");
  expect_part(dry.out, "# validation, otters: 24 documents, ");
}

// The rows of a sets' windows are those of that set alone.
TEST_F(NamedValidation, OfWindows) {
  for (const char* name : {"data", "birds"})
    done({"preprocess", "--tokenizer_name_or_path=model", fmt::format("--train_file={}.jsonl", name),
          fmt::format("--output={}", name), "--output_format=indexed"});
  const Args windows = {"--dataset_format=megatron", "--max_seq_length=16"};
  const auto run_windows = [&](const std::string& out, const std::string& validation) {
    Args args = four_steps(out, validation, windows);
    std::erase(args, "--max_seq_length=64");
    std::ranges::replace(args, std::string("--train_file=data.jsonl"), std::string("--train_file=data"));
    done(args);
  };
  run_windows("alone", "birds");
  run_windows("both", "{otters: data, birds: birds}");
  EXPECT_EQ(of("both", "eval_birds_loss"), of("alone", "eval_loss"));
  EXPECT_EQ(of("both", "eval_otters_loss").size(), 3u);
}

}  // namespace
}  // namespace mixtune
