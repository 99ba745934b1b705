#include "config/lr_groups.h"

#include <gtest/gtest.h>

#include "config/testing.h"

namespace mixtune {
namespace {

TEST(LrGroups, HaveTheirOwnPeakOrTheRuns) {
  const OptimizerSettings settings =
      parse_config("learning_rate: 1e-4\nlr_groups:\n  router: 1e-5\n  embeddings: 0\n", "run.yaml").optimizer;
  EXPECT_EQ(peak_learning_rate(settings, WeightGroup::kRouter), 1e-5);
  EXPECT_EQ(peak_learning_rate(settings, WeightGroup::kEmbeddings), 0);
  for (const WeightGroup group :
       {WeightGroup::kAttention, WeightGroup::kExperts, WeightGroup::kHead, WeightGroup::kNorms})
    EXPECT_EQ(peak_learning_rate(settings, group), 1e-4);
}

TEST(LrGroups, BadOnesAreNamed) {
  EXPECT_EQ(error_of("lr_groups: {routers: 1e-5}\n"),
            "run.yaml:1: lr_groups: there is no group 'routers'; did you mean 'router'?");
  EXPECT_EQ(error_of("lr_groups: {mlp: 1e-5}\n"),
            "run.yaml:1: lr_groups: there is no group 'mlp'; the groups are: attention, embeddings, experts, head, "
            "norms, router");
  EXPECT_EQ(error_of("lr_groups: {router: slow}\n"),
            "run.yaml:1: lr_groups: router: 'slow' is not a number; write one from 0 to 100");
  EXPECT_EQ(error_of("lr_groups:\n  - name: router\n    modules: [gate]\n    lr: 1e-5\n"),  // axolotl's
            "run.yaml:1: lr_groups: takes a mapping, not a list; write {name: value, ...}");
  EXPECT_EQ(error_of("seed: 1\n", {{"lr_groups", "{router: -1}"}}),
            "--lr_groups: router: -1 is out of range; write a number from 0 to 100");
}

TEST(LrGroups, ATiedHeadHasNone) {
  const Config config = parse_config("lr_groups: {head: 1e-5}\n", "run.yaml");
  check_head_rate(config, false);
  check_head_rate(parse_config("lr_groups: {embeddings: 1e-5}\n", "run.yaml"), true);
  try {
    check_head_rate(config, true);
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(),
                 "run.yaml:1: lr_groups: head: the model's head has no weights of its own: they are the embeddings' "
                 "(tie_word_embeddings); remove it, or set embeddings");
  }
}

}  // namespace
}  // namespace mixtune
