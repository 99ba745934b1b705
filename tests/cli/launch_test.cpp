// `mixtune train` in the environments that operators, containers and Slurm leave a process, through the program itself.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "program.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

struct Environment {
  std::string name, variables;
  std::string warning = "";  // a part of it; "": none
};

void PrintTo(const Environment& environment, std::ostream* out) {
  *out << environment.name;
}

class LaunchedRuns : public testing::TestWithParam<Environment> {
 protected:
  void SetUp() override {
    make_model(work_.path() / "model");
    std::string text;
    for (int i = 0; i < 4; ++i) text += fmt::format("{{\"input\": \"otter {}\", \"output\": \"swims\"}}\n", i);
    write(work_.path() / "data.jsonl", text);
  }

  // Trains; nothing here waits for a rank that nobody has started.
  Outcome train(const std::string& variables, const std::string& more) const {
    return run_shell(fmt::format("exec env {} \"$0\" train --model_name_or_path=model --train_file=data.jsonl "
                                 "--output_dir=out --max_steps=1 --device=cpu {}",
                                 variables, more),
                     work_.path(), 100);
  }

  TempFolder work_;
};

const std::string kOperator = "WORLD_SIZE=1 RANK=0 MASTER_ADDR=job-master-0.invalid MASTER_PORT=23456";
const std::string kBatch =
    "SLURM_JOB_ID=4711 SLURM_JOB_NAME=train.sh SLURM_JOB_NODELIST=localhost SLURM_NODEID=0 SLURM_PROCID=0 "
    "SLURM_LOCALID=0 SLURM_NTASKS=2 SLURM_NPROCS=2 SLURM_TASKS_PER_NODE=2";

const std::vector<Environment> kEnvironments = {
    {"OperatorOfOneNode", kOperator},
    {"OperatorOfOneNodeWithAPlace", kOperator + " LOCAL_RANK=0"},
    {"StaleWorldSize", "WORLD_SIZE=8", "WORLD_SIZE=8 is ignored"},
    {"SlurmBatch", kBatch, "SLURM_NTASKS=2 is ignored"},
};

TEST_P(LaunchedRuns, Alone) {
  const auto& [name, variables, warning] = GetParam();
  const Outcome outcome = train(variables, "");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, warning.empty() ? testing::Matcher<std::string>(Not(HasSubstr("ignored")))
                                           : testing::Matcher<std::string>(HasSubstr("mixtune: warning: " + warning)));
  EXPECT_THAT(outcome.err, Not(HasSubstr("zero_stage")));
  EXPECT_TRUE(fs::exists(work_.path() / "out/checkpoint-1/config.json"));
}

TEST_P(LaunchedRuns, WithRanksOfTheirOwn) {
  const Outcome outcome = train(GetParam().variables, "--nproc=2 --per_device_train_batch_size=1");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("zero_stage 1, global batch of 2 rows"));
  EXPECT_TRUE(fs::exists(work_.path() / "out/checkpoint-1/config.json"));
}

INSTANTIATE_TEST_SUITE_P(All, LaunchedRuns, testing::ValuesIn(kEnvironments),
                         [](const auto& of) { return of.param.name; });

// A launcher's variables for this test are not for the programs that it runs.
TEST(Programs, KnowNothingOfTheTestsLauncher) {
  const std::vector<std::string> names = {"RANK",
                                          "WORLD_SIZE",
                                          "LOCAL_RANK",
                                          "MASTER_ADDR",
                                          "SLURM_PROCID",
                                          "OMPI_COMM_WORLD_RANK",
                                          "PMIX_RANK",
                                          "MV2_COMM_WORLD_RANK",
                                          "TORCHELASTIC_RUN_ID",
                                          "PET_NNODES",
                                          "KUBERNETES_SERVICE_HOST",
                                          "MIXTUNE_TOKEN"};
  std::vector<std::pair<std::string, std::string>> given;
  for (const std::string& name : names) {
    if (const char* value = std::getenv(name.c_str())) given.emplace_back(name, value);
    setenv(name.c_str(), "1", 1);
  }
  const TempFolder work;
  const std::string all = "\n" + run_shell("env", work.path()).out;
  for (const std::string& name : names) {
    EXPECT_EQ(all.find("\n" + name + "="), all.npos) << name;
    unsetenv(name.c_str());
  }
  for (const auto& [name, value] : given) setenv(name.c_str(), value.c_str(), 1);
  EXPECT_NE(all.find("\nPATH="), all.npos);
}

class LaunchMistakes : public LaunchedRuns {};

TEST_P(LaunchMistakes, AreToldInOneLineBeforeAnythingStarts) {
  const auto& [name, variables, error] = GetParam();
  const auto before = snapshot(work_.path());
  const Outcome outcome = train(variables, name == "TwoLaunchers" ? "--nproc=2" : "");
  EXPECT_EQ(outcome.code, 2) << outcome.err;
  EXPECT_THAT(outcome.err, AllOf(testing::StartsWith("mixtune: error: " + error), HasSubstr("'unset ")));
  EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
  EXPECT_TRUE(snapshot(work_.path()) == before);
}

const std::string kMaster = " MASTER_ADDR=127.0.0.1 MASTER_PORT=29500";

const std::vector<Environment> kLaunchMistakes = {
    {"TwoLaunchers", "RANK=0 WORLD_SIZE=2 LOCAL_RANK=0" + kMaster, "--nproc: this process is rank 0 of 2 already"},
    {"NoWorldSize", "RANK=1", "RANK: is 1, and RANK and WORLD_SIZE are not both set"},
    {"NoMaster", "RANK=0 WORLD_SIZE=2 LOCAL_RANK=0", "MASTER_ADDR: is not set, although RANK=0, WORLD_SIZE=2 are"},
    {"RankBeyondTheWorld", "RANK=2 WORLD_SIZE=2 LOCAL_RANK=0" + kMaster, "RANK: is '2', not a number from 0 to 1"},
    {"OfAnUnknownSize", "PMIX_RANK=0", "PMIX_RANK: is set, and nothing says how many ranks there are"},
};

INSTANTIATE_TEST_SUITE_P(All, LaunchMistakes, testing::ValuesIn(kLaunchMistakes),
                         [](const auto& of) { return of.param.name; });

}  // namespace
}  // namespace mixtune
