#include "cli/arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/error.h"

namespace mixtune {
namespace {

// A program with one subcommand that takes every key, and a flag and a positional of its own.
class Arguments : public testing::Test {
 protected:
  Arguments() : program_("test", "mixtune"), app_(program_.add_subcommand("train", "")), flags_(*app_) {
    app_->add_option("CONFIG", config_, "");
    app_->add_flag("--dry-run", dry_run_, "");
    commands_ = {{app_, [] {
                  }}};
  }

  Overrides parse(std::vector<std::string> args) {
    args.insert(args.begin(), "train");
    EXPECT_EQ(parse_arguments(program_, commands_, std::move(args)), commands_.data());
    return flags_.overrides();
  }

  std::string error(std::vector<std::string> args) {
    try {
      if (parse_arguments(program_, commands_, std::move(args)) != nullptr) flags_.overrides();
      return "";
    } catch (const UserError& user_error) {
      return user_error.what();
    }
  }

  CLI::App program_;
  CLI::App* app_;
  std::string config_;
  bool dry_run_ = false;
  KeyFlags flags_;
  std::vector<Command> commands_;
};

TEST_F(Arguments, BothWaysToGiveAValue) {
  EXPECT_EQ(parse({"run.yaml", "--seed", "7", "--learning_rate=1e-4", "--dry-run"}),
            (Overrides{{"learning_rate", "1e-4"}, {"seed", "7"}}));
  EXPECT_EQ(config_, "run.yaml");
  EXPECT_TRUE(dry_run_);
}

TEST_F(Arguments, ConfigMayStandAnywhere) {
  EXPECT_EQ(parse({"--seed", "7", "run.yaml", "--max_steps=2"}), (Overrides{{"max_steps", "2"}, {"seed", "7"}}));
  EXPECT_EQ(config_, "run.yaml");
}

TEST_F(Arguments, HyphensForUnderscores) {
  EXPECT_EQ(parse({"--max-steps", "3", "--output-dir=a-b"}), (Overrides{{"max_steps", "3"}, {"output_dir", "a-b"}}));
}

TEST_F(Arguments, NegativeNumbersAreValues) {
  EXPECT_EQ(parse({"--max_steps", "-1", "--weight_decay", "-0.5"}),
            (Overrides{{"max_steps", "-1"}, {"weight_decay", "-0.5"}}));
}

TEST_F(Arguments, BooleansWithAndWithoutValue) {
  EXPECT_EQ(parse({"--packing", "run.yaml", "--shuffle", "false"}),
            (Overrides{{"packing", "true"}, {"shuffle", "false"}}));
  EXPECT_EQ(config_, "run.yaml");
}

TEST_F(Arguments, LastBooleanAndExplicitTrue) {
  EXPECT_EQ(parse({"--train_on_prompt=no", "--packing"}), (Overrides{{"train_on_prompt", "no"}, {"packing", "true"}}));
}

TEST_F(Arguments, RepeatedFilesAreAList) {
  EXPECT_EQ(parse({"--train_file", "a", "--train_file", "b"}), (Overrides{{"train_file", "a"}, {"train_file", "b"}}));
}

TEST_F(Arguments, UnknownFlag) {
  EXPECT_EQ(error({"train", "--learing_rate", "1"}),
            "command line: unknown flag '--learing_rate'; did you mean '--learning_rate'?");
  EXPECT_EQ(error({"train", "--dry-rum"}), "command line: unknown flag '--dry-rum'; did you mean '--dry-run'?");
  EXPECT_EQ(error({"train", "-x"}), "command line: unknown flag '-x'; 'mixtune train --help' lists the flags");
}

TEST_F(Arguments, FlagsOfOtherTrainersAreInTheTable) {
  const std::string rows = "; use 'per_device_train_batch_size' (rows of a micro-batch on one rank)";
  EXPECT_EQ(error({"train", "--micro_batch_size", "2"}), "command line: unknown flag '--micro_batch_size'" + rows);
  EXPECT_EQ(error({"train", "--micro-batch-size=2"}), "command line: unknown flag '--micro-batch-size'" + rows);
  EXPECT_THAT(error({"train", "--tensor-model-parallel-size", "2"}), testing::HasSubstr("only experts are split"));
  EXPECT_THAT(error({"train", "--attn_implementation", "eager"}), testing::HasSubstr("not needed"));
}

TEST_F(Arguments, AllUnknownFlagsAtOnce) {
  EXPECT_EQ(error({"train", "--load_in_4bit", "8", "--sead", "-1", "--dry-rum"}),
            "command line: unknown flag '--load_in_4bit'; use 'adapter' ('qlora')\n"
            "command line: unknown flag '--sead'; did you mean '--seed'?\n"
            "command line: unknown flag '--dry-rum'; did you mean '--dry-run'?\n"
            "command line: 3 of these; docs/coming-from.md says what other trainers' keys are called here");
}

TEST_F(Arguments, ACommandWithFewKeysHasTheHintsOfThose) {
  CLI::App* few = program_.add_subcommand("evaluate", "");
  const KeyFlags flags(*few, {"max_seq_length"});
  commands_.push_back({few, {}});
  EXPECT_EQ(error({"evaluate", "--block_size", "2"}),
            "command line: unknown flag '--block_size'; use 'max_seq_length'");
  EXPECT_EQ(error({"evaluate", "--seq-length", "2"}), "") << "another name of the same key";
  EXPECT_EQ(error({"evaluate", "--micro_batch_size", "2"}),
            "command line: unknown flag '--micro_batch_size'; 'mixtune evaluate --help' lists the flags");
  EXPECT_EQ(error({"evaluate", "--learning_rate", "2"}),
            "command line: unknown flag '--learning_rate'; this command does not take that key: 'mixtune evaluate "
            "--help' lists the flags");
}

TEST_F(Arguments, SeveralFilesAfterOneFlag) {
  const std::string mend =
      ": is data, not a YAML file of keys; to train on it, give --train_file once for each file, or "
      "a pattern in quotes";
  EXPECT_EQ(error({"train", "--train_file", "a.jsonl", "run.yaml", "b.jsonl"}), "b.jsonl" + mend);
}

TEST_F(Arguments, MissingValue) {
  EXPECT_EQ(error({"train", "--seed"}), "--seed: needs a value; write --seed VALUE");
  EXPECT_EQ(error({"train", "--output_dir", "--seed", "1"}), "--output_dir: needs a value; write --output_dir VALUE");
}

TEST_F(Arguments, TooManyWords) {
  EXPECT_EQ(error({"train", "a.yaml", "b.yaml"}),
            "command line: unexpected argument 'b.yaml'; see 'mixtune train --help'");
}

TEST_F(Arguments, UnknownOrNoCommand) {
  EXPECT_EQ(error({"tran"}), "command line: unknown command 'tran'; did you mean 'train'?");
  EXPECT_EQ(error({"zzzzzz"}), "command line: unknown command 'zzzzzz'; use one of: train");
}

TEST_F(Arguments, NoCommandPrintsHelp) {
  testing::internal::CaptureStderr();
  EXPECT_THROW(parse_arguments(program_, commands_, {}), Ended);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::HasSubstr("Subcommands:"));
}

TEST_F(Arguments, ErrorsPointAtTheCommandsHelp) {
  app_->add_option("--need", dry_run_, "")->required();
  EXPECT_THAT(error({"train"}), testing::EndsWith("see 'mixtune train --help'"));
  EXPECT_THAT(error({"--need"}), testing::EndsWith("see 'mixtune --help'"));
}

TEST_F(Arguments, Subcommands) {
  CLI::App* group = program_.add_subcommand("bench", "");
  CLI::App* leaf = group->add_subcommand("load", "");
  std::string folder;
  leaf->add_option("FOLDER", folder, "")->required();
  group->add_subcommand("step", "");
  commands_.push_back({group, {}, {{leaf, {}}}});
  testing::internal::CaptureStderr();
  EXPECT_THROW(parse_arguments(program_, commands_, {"bench"}), Ended);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::HasSubstr("load"));
  EXPECT_EQ(error({"bench", "loda"}), "command line: unknown command 'loda'; did you mean 'load'?");
  EXPECT_THAT(error({"bench", "--layers", "2"}), testing::EndsWith("see 'mixtune bench --help'"));
  EXPECT_THAT(error({"bench", "load"}), testing::EndsWith("see 'mixtune bench load --help'"));
  EXPECT_EQ(error({"bench", "load", "x", "--yyyyyy"}),
            "command line: unknown flag '--yyyyyy'; 'mixtune bench load --help' lists the flags");
  EXPECT_EQ(parse_arguments(program_, commands_, {"bench", "load", "step"}), commands_[1].subcommands.data());
  EXPECT_EQ(folder, "step");  // an argument, though it is the name of a command
}

TEST_F(Arguments, HelpAsAWord) {
  testing::internal::CaptureStdout();
  EXPECT_EQ(parse_arguments(program_, commands_, {"help"}), nullptr);
  EXPECT_NE(testing::internal::GetCapturedStdout().find("train"), std::string::npos);
}

TEST_F(Arguments, HelpNamesEveryKeyAndEndsWell) {
  testing::internal::CaptureStdout();
  EXPECT_EQ(parse_arguments(program_, commands_, {"train", "--help"}), nullptr);
  const std::string help = testing::internal::GetCapturedStdout();
  for (const char* text : {"--learning_rate NUMBER", "--packing true|false", "Optimizer:", "5e-05"})
    EXPECT_NE(help.find(text), std::string::npos) << text;
}

TEST(KeyFlags, OnlyTheChosenGroupsAndNames) {
  CLI::App app("test", "mixtune");
  const KeyFlags flags(app, {"Data", "seed"});
  EXPECT_NE(app.get_option_no_throw("--packing"), nullptr);
  EXPECT_NE(app.get_option_no_throw("--seed"), nullptr);
  EXPECT_EQ(app.get_option_no_throw("--learning_rate"), nullptr);
}

}  // namespace
}  // namespace mixtune
