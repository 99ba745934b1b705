#include "config/schedule_kwargs.h"

#include <gtest/gtest.h>

#include "config/testing.h"

namespace mixtune {
namespace {

TEST(ScheduleKwargs, AreReadAsTransformersTakesThem) {
  const std::string type = "lr_scheduler_type: cosine_with_min_lr\nlearning_rate: 1e-4\nlr_scheduler_kwargs: ";
  for (const char* text : {"\n  min_lr: 1e-6\n  num_cycles: 1\n", "{min_lr: 0.000001, num_cycles: 1.0}\n",
                           "{\"num_cycles\": 1, \"min_lr\": 1e-06}\n", "'{\"min_lr\": 1e-6, \"num_cycles\": 1}'\n"}) {
    const Config config = parse_config(type + text, "run.yaml");
    EXPECT_EQ(config.optimizer.lr_scheduler_kwargs, (Mapping{{"min_lr", "1e-06"}, {"num_cycles", "1"}})) << text;
    EXPECT_EQ(number_kwarg(config.optimizer, "min_lr"), 1e-6);
    EXPECT_EQ(number_kwarg(config.optimizer, "min_lr_rate"), std::nullopt);
  }
  EXPECT_EQ(error_of("lr_scheduler_type: cosine\nlr_scheduler_kwargs: {}\n"), "");
  EXPECT_EQ(error_of("lr_scheduler_type: linear\nlr_scheduler_kwargs:\n"), "");
  EXPECT_EQ(error_of("seed: 1\n", {{"lr_scheduler_type", "cosine"}, {"lr_scheduler_kwargs", "{num_cycles: 2}"}}), "");
}

TEST(ScheduleKwargs, PrintedOnesReadBack) {
  const Config config = parse_config(
      "lr_scheduler_type: warmup_stable_decay\n"
      "lr_scheduler_kwargs: {num_decay_steps: 1_000, decay_type: 1-sqrt, min_lr_ratio: 0.10}\n",
      "run.yaml");
  const std::string printed = print_config(config);
  EXPECT_NE(printed.find("lr_scheduler_kwargs: {\"decay_type\": \"1-sqrt\", \"min_lr_ratio\": 0.1, "
                         "\"num_decay_steps\": 1000}\n"),
            std::string::npos);
  EXPECT_EQ(print_config(parse_config(printed, "printed.yaml")), printed);
  EXPECT_EQ(text_kwarg(config.optimizer, "decay_type"), "1-sqrt");
  EXPECT_EQ(text_kwarg(config.optimizer, "warmup_type"), "linear");
  EXPECT_EQ(number_kwarg(config.optimizer, "num_cycles"), 0.5);
}

class BadKwargs : public testing::TestWithParam<BadText> {};

TEST_P(BadKwargs, OneLineNamesPlaceAndMend) {
  EXPECT_EQ(error_of(GetParam().text), GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    Names, BadKwargs,
    testing::Values(
        BadText{"lr_scheduler_kwargs: {min_lr: 0}\n",
                "run.yaml:1: lr_scheduler_kwargs: 'min_lr' is no setting of lr_scheduler_type linear; it has none"},
        BadText{"lr_scheduler_type: cosine\nlr_scheduler_kwargs: {num_cycle: 1}\n",
                "run.yaml:2: lr_scheduler_kwargs: 'num_cycle' is no setting of lr_scheduler_type cosine; did you mean "
                "'num_cycles'?"},
        BadText{"lr_scheduler_type: polynomial\nlr_scheduler_kwargs: {last_epoch: 1}\n",
                "run.yaml:2: lr_scheduler_kwargs: 'last_epoch' is no setting of lr_scheduler_type polynomial; it has: "
                "lr_end, power"},
        BadText{"lr_scheduler_kwargs: {a: 1, a: 2}\n",
                "run.yaml:1: the key 'a' is repeated; it stands in line 1 already: keep one of the two"},
        BadText{"lr_scheduler_kwargs: {a: {b: 1}}\n",
                "run.yaml:1: lr_scheduler_kwargs: nested values are not allowed; write one 'key: value' a line, and "
                "close every bracket"},
        BadText{"lr_scheduler_kwargs: '{a: {b: 1}}'\n",
                "run.yaml:1: lr_scheduler_kwargs: a: nested values are not allowed; write one value"},
        BadText{"lr_scheduler_kwargs: {a: [1]}\n",
                "run.yaml:1: lr_scheduler_kwargs: a: takes one value, not a list; write one value"},
        BadText{"lr_scheduler_kwargs: [a]\n",
                "run.yaml:1: lr_scheduler_kwargs: takes a mapping, not a list; write {name: value, ...}"},
        BadText{"lr_scheduler_kwargs: fast\n",
                "run.yaml:1: lr_scheduler_kwargs: 'fast' is no mapping; write {name: value, ...}"},
        BadText{"lr_scheduler_kwargs: '{a: 1'\n",
                "run.yaml:1: lr_scheduler_kwargs:1: nested values are not allowed; write one 'key: value' a line, and "
                "close every bracket"},
        BadText{"seed: {a: 1}\n",
                "run.yaml:1: seed: nested values are not allowed; write one 'key: value' a line, and close every "
                "bracket"},
        BadText{"datasets: {path: a}\n",
                "run.yaml:1: datasets: nested values are not allowed; write one 'key: value' a line, and close every "
                "bracket"}));

INSTANTIATE_TEST_SUITE_P(
    Values, BadKwargs,
    testing::Values(
        BadText{"lr_scheduler_type: cosine\nlr_scheduler_kwargs: {num_cycles: fast}\n",
                "run.yaml:2: lr_scheduler_kwargs: num_cycles: 'fast' is not a number; write one above 0 and at most "
                "1000000"},
        BadText{"lr_scheduler_type: cosine\nlr_scheduler_kwargs: {num_cycles: nan}\n",
                "run.yaml:2: lr_scheduler_kwargs: num_cycles: nan is out of range; write a number above 0 and at most "
                "1000000"},
        BadText{"lr_scheduler_type: cosine\nlr_scheduler_kwargs: {num_cycles: ''}\n",
                "run.yaml:2: lr_scheduler_kwargs: num_cycles: the value is empty; give one or remove the key"},
        BadText{"lr_scheduler_type: inverse_sqrt\nlr_scheduler_kwargs: {timescale: 0}\n",
                "run.yaml:2: lr_scheduler_kwargs: timescale: 0 is out of range; write a number from 1 to "
                "1000000000000"},
        BadText{"lr_scheduler_type: warmup_stable_decay\nlr_scheduler_kwargs: {num_decay_steps: 1.5}\n",
                "run.yaml:2: lr_scheduler_kwargs: num_decay_steps: 1.5 is not a whole number; write it without a "
                "fraction"},
        BadText{"lr_scheduler_type: warmup_stable_decay\nlr_scheduler_kwargs: {num_decay_steps: 1, decay_type: sqrt}\n",
                "run.yaml:2: lr_scheduler_kwargs: decay_type: unknown value 'sqrt'; use one of: linear, cosine, "
                "1-sqrt, exponential"}));

INSTANTIATE_TEST_SUITE_P(
    Together, BadKwargs,
    testing::Values(
        BadText{"lr_scheduler_type: cosine_with_min_lr\n",
                "run.yaml:1: lr_scheduler_type: cosine_with_min_lr needs the rate it falls to; set "
                "lr_scheduler_kwargs: {min_lr: RATE}, or {min_lr_rate: SHARE} of learning_rate"},
        BadText{"lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 0, min_lr_rate: 0}\n",
                "run.yaml:2: lr_scheduler_kwargs: there are both min_lr and min_lr_rate; keep one of the two"},
        BadText{"lr_scheduler_type: cosine_warmup_with_min_lr\nlr_scheduler_kwargs: {min_lr: 1e-3}\n",
                "run.yaml:2: lr_scheduler_kwargs: min_lr: 0.001 is above learning_rate, 5e-05; lower it: a run begins "
                "to fall at learning_rate"},
        BadText{"lr_scheduler_type: polynomial\nlearning_rate: 1e-7\n",
                "run.yaml:1: lr_scheduler_type: polynomial falls to lr_end, 1e-07, which is not below learning_rate, "
                "1e-07; set lr_scheduler_kwargs: {lr_end: RATE} below it"},
        BadText{"lr_scheduler_type: warmup_stable_decay\n",
                "run.yaml:1: lr_scheduler_type: warmup_stable_decay needs the number of steps of its decay; set "
                "lr_scheduler_kwargs: {num_decay_steps: N}"}));

}  // namespace
}  // namespace mixtune
