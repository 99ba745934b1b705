#include "config/check_evaluations.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/log.h"
#include "config/testing.h"

namespace mixtune {
namespace {

const Overrides kData = {{"validation_file", "v.jsonl"}};

TEST(CheckEvaluations, TheBestNeedsAnEvaluationAtEachStepThatIsSaved) {
  const std::string best = "load_best_model_at_end: true\n";
  EXPECT_EQ(error_of(best + "eval_steps: 10\nsave_steps: 10\n", kData), "");
  EXPECT_EQ(error_of(best + "eval_steps: 10\nsave_steps: 30\n", kData), "");
  EXPECT_EQ(error_of(best + "eval_steps: 100\n", kData), "");
  EXPECT_EQ(error_of("eval_steps: 10\nsave_steps: 15\n", kData), "");
  EXPECT_EQ(error_of(best + "eval_steps: 10\nsave_steps: 25\n", kData),
            "run.yaml:1: load_best_model_at_end: needs checkpoints along the way, each with an evaluation at its step, "
            "but save_steps is 25 and eval_steps is 10; set save_steps to a multiple of eval_steps, such as 20");
  EXPECT_THAT(error_of(best + "eval_steps: 10\nsave_steps: 5\n", kData), testing::EndsWith("such as 10"));
  EXPECT_THAT(error_of(best + "eval_steps: 10\nsave_steps: 0\n", kData), testing::EndsWith("such as 10"));
  EXPECT_THAT(error_of(best, kData),
              testing::EndsWith("set eval_steps so that save_steps is a multiple of it, such as 500"));
  EXPECT_THAT(error_of(best + "save_steps: 0\n", kData),
              testing::EndsWith("set eval_steps, and save_steps to a multiple of it"));
}

TEST(CheckEvaluations, PatienceNeedsSome) {
  EXPECT_EQ(error_of("early_stopping_patience: 3\neval_steps: 10\n", kData), "");
  EXPECT_EQ(error_of("early_stopping_patience: 3\n"),
            "run.yaml:1: early_stopping_patience: counts evaluations, but eval_steps is 0: there is one, at the end; "
            "set eval_steps");
  const LogRecord log;
  EXPECT_EQ(error_of("early_stopping_threshold: 0.1\n"), "");
  ASSERT_EQ(log.lines().size(), 1u);
  EXPECT_EQ(log.lines()[0].text, "run.yaml:1: early_stopping_threshold: no effect without early_stopping_patience");
}

TEST(CheckEvaluations, AMetricThatThereIsNot) {
  EXPECT_EQ(error_of("metric_for_best_model: eval_accuracy\n"),
            "run.yaml:1: metric_for_best_model: unknown value 'eval_accuracy'; use one of: eval_loss, eval_perplexity");
  EXPECT_EQ(error_of("metric_for_best_model: loss\n"),
            "run.yaml:1: metric_for_best_model: unknown value 'loss'; use 'eval_loss'");
}

// transformers too takes the metric of one of several sets by that name.
TEST(CheckEvaluations, OfSeveralSetsOneIsNamed) {
  const std::string sets = "validation_file: {chat: c.jsonl, code: d.jsonl}\neval_steps: 10\n",
                    best = sets + "load_best_model_at_end: true\n", patience = sets + "early_stopping_patience: 3\n";
  EXPECT_EQ(error_of(sets), "");
  EXPECT_EQ(error_of(best + "metric_for_best_model: eval_code_loss\n"), "");
  EXPECT_EQ(error_of(patience + "metric_for_best_model: eval_chat_perplexity\n"), "");
  EXPECT_EQ(error_of(best),
            "run.yaml:3: load_best_model_at_end: the sets of validation_file have names: which of them decides is not "
            "said; set metric_for_best_model to one of: eval_chat_loss, eval_chat_perplexity, eval_code_loss, "
            "eval_code_perplexity");
  EXPECT_THAT(error_of(patience + "metric_for_best_model: eval_loss\n"),
              testing::StartsWith("run.yaml:3: early_stopping_patience: the sets of validation_file have names"));
  EXPECT_EQ(error_of(sets + "metric_for_best_model: code_loss\n"),
            "run.yaml:3: metric_for_best_model: unknown value 'code_loss'; use 'eval_code_loss'");
  EXPECT_THAT(error_of(sets + "metric_for_best_model: eval_cod_loss\n"),
              testing::EndsWith("did you mean 'eval_code_loss'?"));
  EXPECT_THAT(error_of("metric_for_best_model: eval_code_loss\n", kData),
              testing::EndsWith("use one of: eval_loss, eval_perplexity"));
}

TEST(CheckEvaluations, BothNeedValidationData) {
  check_has_validation(parse_config("seed: 1\n", "run.yaml"), false);
  const Config config = parse_config("early_stopping_patience: 3\neval_steps: 10\n", "run.yaml", kData);
  check_has_validation(config, true);
  try {
    check_has_validation(config, false);
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_EQ(std::string(error.what()),
              "run.yaml:1: early_stopping_patience: needs evaluations, and no data are left for validation; "
              "give validation a weight in split, or set validation_file");
  }
}

}  // namespace
}  // namespace mixtune
