#include "job/launch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"

namespace mixtune {
namespace {

using testing::HasSubstr;
using Variables = std::map<std::string, std::string>;

std::optional<Launch> launch(const Variables& variables) {
  return start_from([&](const char* name) {
           const auto found = variables.find(name);
           return found == variables.end() ? nullptr : found->second.c_str();
         })
      .rank;
}

// `variables` with `changes`; an empty value removes one.
Variables with(Variables variables, const Variables& changes) {
  for (const auto& [name, value] : changes)
    if (value.empty())
      variables.erase(name);
    else
      variables[name] = value;
  return variables;
}

std::string launch_error(const Variables& variables) {
  try {
    launch(variables);
  } catch (const UserError& error) {
    return error.what();
  }
  return "none";
}

const Variables kRankOfTorchrun = {
    {"RANK", "3"}, {"WORLD_SIZE", "4"}, {"LOCAL_RANK", "1"}, {"MASTER_ADDR", "head"}, {"MASTER_PORT", "29500"}};
const Variables kSrun = {{"SLURM_PROCID", "5"},         {"SLURM_STEP_ID", "0"},
                         {"SLURM_STEP_NUM_TASKS", "8"}, {"SLURM_LOCALID", "1"},
                         {"SLURM_JOB_ID", "4711"},      {"SLURM_JOB_NODELIST", "gpu[03-05,9],login1"}};
const Variables kMpirun = {{"OMPI_COMM_WORLD_RANK", "1"},
                           {"OMPI_COMM_WORLD_SIZE", "2"},
                           {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                           {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};

TEST(Launch, Torchrun) {
  const auto l = launch(kRankOfTorchrun);
  ASSERT_TRUE(l);
  EXPECT_EQ(l->rank, 3);
  EXPECT_EQ(l->size, 4);
  EXPECT_EQ(l->local_rank, 1);
  EXPECT_EQ(l->host, "head");
  EXPECT_EQ(l->port, 29500);
  EXPECT_FALSE(l->supervised);
}

TEST(Launch, OurSupervisorAlsoOfOneRank) {
  const auto l = launch(with(kRankOfTorchrun, {{"MIXTUNE_SUPERVISED", "1"},
                                               {"RANK", "0"},
                                               {"WORLD_SIZE", "1"},
                                               {"LOCAL_RANK", "0"},
                                               {"TORCHELASTIC_USE_AGENT_STORE", "True"}}));
  ASSERT_TRUE(l);
  EXPECT_TRUE(l->supervised);
  EXPECT_EQ(l->size, 1);
  EXPECT_EQ(l->port, 29500);
}

TEST(Launch, LeavesTorchrunItsOwnPort) {
  EXPECT_EQ(launch(with(kRankOfTorchrun, {{"TORCHELASTIC_USE_AGENT_STORE", "True"}}))->port, 29501);
  EXPECT_EQ(launch(with(kRankOfTorchrun, {{"TORCHELASTIC_USE_AGENT_STORE", "False"}}))->port, 29500);
}

TEST(Launch, Srun) {
  const auto l = launch(kSrun);
  ASSERT_TRUE(l);
  EXPECT_EQ(l->rank, 5);
  EXPECT_EQ(l->size, 8);
  EXPECT_EQ(l->local_rank, 1);
  EXPECT_EQ(l->host, "gpu03");
  EXPECT_EQ(l->port, launch(with(kSrun, {{"SLURM_PROCID", "0"}, {"SLURM_LOCALID", "0"}}))->port);
  EXPECT_NE(l->port, launch(with(kSrun, {{"SLURM_JOB_ID", "4712"}}))->port);
  EXPECT_GE(l->port, 20000);
  EXPECT_LT(l->port, 32000);
}

TEST(Launch, SrunWithAnAddressOfItsOwn) {
  const auto l =
      launch(with(kSrun, {{"MASTER_ADDR", "10.0.0.1"}, {"MASTER_PORT", "4000"}, {"SLURM_JOB_NODELIST", ""}}));
  EXPECT_EQ(l->host, "10.0.0.1");
  EXPECT_EQ(l->port, 4000);
}

TEST(Launch, FirstNodeOfSlurmsLists) {
  const auto host = [](const std::string& list) {
    return launch(with(kSrun, {{"SLURM_STEP_NODELIST", list}}))->host;
  };
  EXPECT_EQ(host("one"), "one");
  EXPECT_EQ(host("one,two"), "one");
  EXPECT_EQ(host("n[9,12-14]"), "n9");
  EXPECT_EQ(host("rack[2-3]-node[007,9].local,x"), "rack2-node007.local");
  for (const char* list : {"n[1-2", "n]", ",n", "[]"})
    EXPECT_THAT(launch_error(with(kSrun, {{"SLURM_STEP_NODELIST", list}})), HasSubstr("SLURM_STEP_NODELIST: is '"));
}

TEST(Launch, Mpirun) {
  const auto l = launch(kMpirun);
  ASSERT_TRUE(l);
  EXPECT_EQ(l->rank, 1);
  EXPECT_EQ(l->size, 2);
  EXPECT_EQ(l->local_rank, 1);
  EXPECT_EQ(l->host, "127.0.0.1");
  EXPECT_NE(launch(with(kMpirun, {{"PMIX_NAMESPACE", "job1"}}))->port,
            launch(with(kMpirun, {{"PMIX_NAMESPACE", "job2"}}))->port);
  const Variables apart = with(kMpirun, {{"OMPI_COMM_WORLD_LOCAL_SIZE", "1"}});
  EXPECT_THAT(launch_error(apart), HasSubstr("MASTER_ADDR"));
  EXPECT_EQ(launch(with(apart, {{"MASTER_ADDR", "head"}}))->host, "head");
}

TEST(Launch, WhatIsMissingIsNamed) {
  for (const char* name : {"LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"})
    EXPECT_THAT(launch_error(with(kRankOfTorchrun, {{name, ""}})), HasSubstr(std::string(name) + ": is not set"));
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"})
    EXPECT_THAT(launch_error(with(kMpirun, {{name, ""}})), HasSubstr(std::string(name) + ": is not set"));
  for (const char* name : {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_JOB_NODELIST"})
    EXPECT_THAT(launch_error(with(kSrun, {{name, ""}})), HasSubstr(std::string(name) + ": is not set"));
}

TEST(Launch, NonsenseIsNamed) {
  const auto expect = [](const Variables& all, const std::string& name, const std::string& value) {
    EXPECT_THAT(launch_error(with(all, {{name, value}})), HasSubstr(name + ": is '" + value + "', not a number"));
  };
  expect(kRankOfTorchrun, "RANK", "4");
  expect(kRankOfTorchrun, "RANK", "-1");
  expect(kRankOfTorchrun, "RANK", "1x");
  expect(kRankOfTorchrun, "WORLD_SIZE", "0");
  expect(kRankOfTorchrun, "LOCAL_RANK", "9");
  expect(kRankOfTorchrun, "MASTER_PORT", "70000");
  expect(kRankOfTorchrun, "MASTER_PORT", "99999999999");
  expect(kSrun, "SLURM_STEP_NUM_TASKS", "many");
  expect(kSrun, "MASTER_PORT", "0");
  expect(kMpirun, "OMPI_COMM_WORLD_RANK", "2");
}

}  // namespace
}  // namespace mixtune
