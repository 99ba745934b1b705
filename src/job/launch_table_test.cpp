// Environments as launchers, operators and shells leave them, and what mixtune makes of each.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <sstream>
#include <vector>

#include "base/error.h"
#include "job/launch.h"

namespace mixtune {
namespace {

using testing::HasSubstr;
using testing::StartsWith;
using Variables = std::map<std::string, std::string>;

Variables operator+(Variables all, const Variables& more) {
  for (const auto& [name, value] : more) all[name] = value;
  return all;
}

Start start(const Variables& variables, const StartOptions& options) {
  return start_from(
      [&](const char* name) {
        const auto found = variables.find(name);
        return found == variables.end() ? nullptr : found->second.c_str();
      },
      options);
}

std::string outcome_of(const Variables& variables, const StartOptions& options) {
  try {
    const Start s = start(variables, options);
    const std::string place = s.rank ? fmt::format("rank {} of {}, {} here, at {}", s.rank->rank, s.rank->size,
                                                   s.rank->local_rank, s.rank->host)
                                     : "alone";
    return place + (s.ignored.empty() ? "" : "; " + s.ignored);
  } catch (const UserError& error) {
    return std::string("error: ") + error.what();
  }
}

// The environments after the commands 'unset NAME...' that a message advises.
std::vector<Variables> unset_by(const std::string& message, const Variables& variables) {
  const std::string word = "'unset ";
  std::vector<Variables> advised;
  for (size_t at = message.find(word); at != message.npos; at = message.find(word, at + 1)) {
    const size_t begin = at + word.size();
    std::istringstream names(message.substr(begin, message.find('\'', begin) - begin));
    Variables left = variables;
    for (std::string name; names >> name;) left.erase(name);
    advised.push_back(left);
  }
  return advised;
}

struct Row {
  std::string name;
  Variables variables;
  StartOptions options;
  std::string outcome;
  std::string part = "";  // of the outcome, besides how it starts
};

void PrintTo(const Row& row, std::ostream* out) {
  *out << row.name;
}

class LaunchTable : public testing::TestWithParam<Row> {};

TEST_P(LaunchTable, Outcome) {
  const Row& row = GetParam();
  const std::string outcome = outcome_of(row.variables, row.options);
  if (row.part.empty() && !row.outcome.starts_with("error"))
    EXPECT_EQ(outcome, row.outcome);
  else
    EXPECT_THAT(outcome, StartsWith(row.outcome));
  EXPECT_THAT(outcome, HasSubstr(row.part));
  EXPECT_EQ(outcome.find('\n'), outcome.npos);
}

// A user who follows the errors' advice never goes round in circles, and never becomes a rank by --nproc's.
TEST_P(LaunchTable, AdviceLeadsSomewhere) {
  const Row& row = GetParam();
  if (!outcome_of(row.variables, row.options).starts_with("error")) return;
  std::vector<Variables> reached = {row.variables};
  for (size_t i = 0; i < reached.size(); ++i) {
    const Variables variables = reached[i];
    const std::string outcome = outcome_of(variables, row.options);
    if (!outcome.starts_with("error")) {
      EXPECT_TRUE(row.options.nproc == 0 || outcome.starts_with("alone")) << outcome;
      continue;
    }
    const auto advised = unset_by(outcome, variables);
    EXPECT_FALSE(advised.empty()) << outcome;
    for (const Variables& left : advised) {
      EXPECT_LT(left.size(), variables.size()) << "advises what is done: " << outcome;
      reached.push_back(left);
    }
    ASSERT_LT(reached.size(), 50u);
  }
}

const StartOptions kNone = {}, kTwo = {.nproc = 2, .at_terminal = false}, kTyped = {.nproc = 0, .at_terminal = true},
                   kTypedTwo = {.nproc = 2, .at_terminal = true};

const Variables kMaster = {{"MASTER_ADDR", "head"}, {"MASTER_PORT", "29500"}};
const Variables kRank = {{"RANK", "3"}, {"WORLD_SIZE", "4"}};
const Variables kTorchrun = kRank + kMaster + Variables{{"LOCAL_RANK", "1"}, {"TORCHELASTIC_RUN_ID", "none"}};
// What the operator for PyTorch sets in the only pod of a job, and in one of two.
const Variables kOnlyPod = kMaster + Variables{{"WORLD_SIZE", "1"}, {"RANK", "0"}};
const Variables kKubernetes = {{"KUBERNETES_SERVICE_HOST", "10.96.0.1"}};
const Variables kPod = kMaster + kKubernetes + Variables{{"WORLD_SIZE", "2"}, {"RANK", "1"}};
// A script of sbatch --ntasks=2, a task of srun in it, and the shell of salloc.
const Variables kBatch = {{"SLURM_JOB_ID", "4711"}, {"SLURM_JOB_NODELIST", "gpu[03-04]"},
                          {"SLURM_PROCID", "0"},    {"SLURM_LOCALID", "0"},
                          {"SLURM_NTASKS", "2"},    {"SLURM_NPROCS", "2"}};
const Variables kTask = kBatch + Variables{{"SLURM_STEP_ID", "0"},
                                           {"SLURM_STEP_NUM_TASKS", "2"},
                                           {"SLURM_STEP_NODELIST", "gpu[03-04]"},
                                           {"SLURM_PROCID", "1"}};
const Variables kTaskOfOne =
    kTask + Variables{{"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_NTASKS", "1"}, {"SLURM_PROCID", "0"}};
const Variables kSalloc =
    kBatch + Variables{{"SLURM_STEP_ID", "4294967290"}, {"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_NTASKS", "8"}};
const Variables kHydra = {{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "1"}, {"MPI_LOCALNRANKS", "2"}};
const Variables kOpenMpi = {{"OMPI_COMM_WORLD_RANK", "1"},
                            {"OMPI_COMM_WORLD_SIZE", "2"},
                            {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                            {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                            {"PMIX_RANK", "1"},
                            {"PMIX_NAMESPACE", "prterun-1"}};

const std::string kPyTorchCounts = "only RANK and WORLD_SIZE together make this process a rank";

const std::vector<Row> kAlone = {
    {"Nothing", {}, kNone, "alone"},
    {"NothingForTwo", {}, kTwo, "alone"},
    {"OnlyPod", kOnlyPod, kNone, "alone"},
    {"OnlyPodForTwo", kOnlyPod, kTwo, "alone"},
    {"OnlyPodInKubernetes", kOnlyPod + kKubernetes, kNone, "alone"},
    {"OneRank", {{"WORLD_SIZE", "1"}, {"RANK", "0"}}, kNone, "alone"},
    {"OneRankOfTorchrun", kTorchrun + Variables{{"RANK", "0"}, {"WORLD_SIZE", "1"}, {"LOCAL_RANK", "0"}}, kTwo,
     "alone"},
    {"OneRankThatWantsAnotherGpu",
     {{"WORLD_SIZE", "1"}, {"RANK", "0"}, {"LOCAL_RANK", "2"}},
     kNone,
     "alone; LOCAL_RANK=2 is ignored: WORLD_SIZE=1"},
    {"WorldSize", {{"WORLD_SIZE", "8"}}, kNone, "alone; WORLD_SIZE=8 is ignored: " + kPyTorchCounts},
    {"WorldSizeForTwo", {{"WORLD_SIZE", "8"}}, kTwo, "alone; WORLD_SIZE=8 is ignored: " + kPyTorchCounts},
    {"Rank", {{"RANK", "0"}}, kNone, "alone; RANK=0 is ignored: " + kPyTorchCounts},
    {"LocalRank", {{"LOCAL_RANK", "0"}}, kNone, "alone; LOCAL_RANK=0 is ignored: " + kPyTorchCounts},
    {"LocalRankOfNobody", {{"LOCAL_RANK", "-1"}}, kNone, "alone; LOCAL_RANK=-1 is ignored: " + kPyTorchCounts},
    {"OtherRankForTwo", {{"RANK", "3"}}, kTwo, "alone; RANK=3 is ignored: " + kPyTorchCounts},
    {"Master", kMaster, kTwo, "alone; MASTER_ADDR=head, MASTER_PORT=29500 are ignored: " + kPyTorchCounts},
    {"RankWithoutMasterForTwo", kRank, kTwo,
     "alone; RANK=3, WORLD_SIZE=4 are ignored: without MASTER_ADDR and MASTER_PORT there is no job to join"},
    {"PodThatCountsItsProcesses", kOnlyPod + Variables{{"PET_NNODES", "1"}, {"WORLD_SIZE", "8"}}, kTwo,
     "alone; RANK=0, WORLD_SIZE=8 are ignored: PET_NNODES=1, and torchrun has not started this process"},
    {"SlurmBatchForTwo", kBatch, kTwo, "alone"},
    {"SlurmBatch", kBatch, kNone, "alone; SLURM_NTASKS=2 is ignored", "'srun mixtune ...' or --nproc starts ranks"},
    {"SlurmBatchThatIsAStep", kBatch + Variables{{"SLURM_STEP_ID", "4294967291"}}, kTwo, "alone"},
    {"SlurmShell", kSalloc, kTyped, "alone; SLURM_NTASKS=8 is ignored", "srun has not started this process"},
    {"SlurmShellForTwo", kSalloc, kTypedTwo, "alone"},
    {"SlurmShellWithoutAStep", {{"SLURM_JOB_ID", "4711"}, {"SLURM_NTASKS", "8"}}, kTwo, "alone"},
    {"SrunPty", kTaskOfOne, kTyped, "alone"},
    {"SrunPtyOfMany", kTask, kTyped, "alone; SLURM_NTASKS=2 is ignored", "srun has not started this process"},
    {"SrunPtyOfManyForTwo", kTask + Variables{{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"PMIX_RANK", "1"}}, kTypedTwo,
     "alone"},
    {"SrunOfOne", kTaskOfOne + Variables{{"PMIX_RANK", "0"}}, kNone, "alone"},
    {"MpirunOfOne", {{"PMI_RANK", "0"}, {"PMI_SIZE", "1"}}, kTwo, "alone"},
};

const std::vector<Row> kRanks = {
    {"Torchrun", kTorchrun, kNone, "rank 3 of 4, 1 here, at head"},
    {"TorchrunInSrun", kTorchrun + kTask, kNone, "rank 3 of 4, 1 here, at head"},
    {"TorchrunInMpirun", kTorchrun + kOpenMpi, kNone, "rank 3 of 4, 1 here, at head"},
    {"TorchrunOfAPod", kTorchrun + kKubernetes + Variables{{"PET_NNODES", "2"}, {"PET_NPROC_PER_NODE", "2"}}, kNone,
     "rank 3 of 4, 1 here, at head"},
    {"ScriptInOneTask", kTaskOfOne + kRank + kMaster + Variables{{"LOCAL_RANK", "1"}}, kNone,
     "rank 3 of 4, 1 here, at head"},
    {"Pod", kPod, kNone, "rank 1 of 2, 0 here, at head"},
    {"PodOfAutomaticProcesses", kPod + Variables{{"PET_NNODES", "2"}, {"PET_NPROC_PER_NODE", "auto"}}, kNone,
     "rank 1 of 2, 0 here, at head"},
    {"Srun", kTask, kNone, "rank 1 of 2, 0 here, at gpu03"},
    {"SrunWithMaster", kTask + kMaster, kNone, "rank 1 of 2, 0 here, at head"},
    {"SrunWithPmi", kTask + Variables{{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"PMIX_RANK", "1"}}, kNone,
     "rank 1 of 2, 0 here, at gpu03"},
    {"SrunAndAScriptThatAgrees", kTask + Variables{{"RANK", "1"}, {"WORLD_SIZE", "2"}}, kNone,
     "rank 1 of 2, 0 here, at gpu03"},
    {"SrunAndAScriptThatChoosesGpus", kTask + Variables{{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "1"}}, kNone,
     "rank 1 of 2, 1 here, at gpu03"},
    {"SrunAndAWorldSize", kTask + Variables{{"WORLD_SIZE", "2"}}, kNone, "rank 1 of 2, 0 here, at gpu03"},
    {"SrunAndALocalRankLeftBehind", kTask + Variables{{"LOCAL_RANK", "1"}}, kNone,
     "rank 1 of 2, 0 here, at gpu03; LOCAL_RANK=1 is ignored: SLURM_PROCID=1, SLURM_STEP_NUM_TASKS=2 count"},
    {"SrunInTheOnlyPod", kTask + kOnlyPod, kNone,
     "rank 1 of 2, 0 here, at head; RANK=0, WORLD_SIZE=1 are ignored: SLURM_PROCID=1, SLURM_STEP_NUM_TASKS=2 count"},
    {"Mpiexec", kHydra, kNone, "rank 1 of 2, 1 here, at 127.0.0.1"},
    {"MpiexecByDaemonsOfSrun", kHydra + kTaskOfOne, kNone, "rank 1 of 2, 1 here, at 127.0.0.1"},
    {"MpiexecByOtherDaemonsOfSrun", kHydra + kTask + kMaster + Variables{{"PMI_RANK", "3"}, {"PMI_SIZE", "4"}}, kNone,
     "rank 3 of 4, 1 here, at head"},
    {"MpiexecApart", kHydra + kMaster + Variables{{"MPI_LOCALNRANKS", "1"}, {"MPI_LOCALRANKID", "0"}}, kNone,
     "rank 1 of 2, 0 here, at head"},
    {"MpiexecOfCray",
     {{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"PMI_LOCAL_RANK", "1"}, {"PMI_LOCAL_SIZE", "2"}},
     kNone,
     "rank 1 of 2, 1 here, at 127.0.0.1"},
    {"MpirunRsh",
     {{"MV2_COMM_WORLD_RANK", "1"},
      {"MV2_COMM_WORLD_SIZE", "2"},
      {"MV2_COMM_WORLD_LOCAL_RANK", "1"},
      {"MV2_COMM_WORLD_LOCAL_SIZE", "2"}},
     kNone,
     "rank 1 of 2, 1 here, at 127.0.0.1"},
    {"MpirunOfOpenMpi", kOpenMpi, kNone, "rank 1 of 2, 1 here, at 127.0.0.1"},
    {"MpirunInTheOnlyPod", kOpenMpi + kOnlyPod, kNone,
     "rank 1 of 2, 1 here, at head; RANK=0, WORLD_SIZE=1 are ignored: OMPI_COMM_WORLD_RANK=1, "
     "OMPI_COMM_WORLD_SIZE=2 count"},
    {"PmixWithPyTorchsVariables", kRank + kMaster + Variables{{"LOCAL_RANK", "1"}, {"PMIX_RANK", "3"}}, kNone,
     "rank 3 of 4, 1 here, at head"},
};

const std::vector<Row> kErrors = {
    {"TorchrunForTwo", kTorchrun, kTwo, "error: --nproc: this process is rank 3 of 4 already (RANK=3, WORLD_SIZE=4)",
     "leave it out, or 'unset RANK WORLD_SIZE' to start ranks here"},
    {"SrunForTwo", kTask, kTwo, "error: --nproc: this process is rank 1 of 2 already",
     "'unset SLURM_PROCID SLURM_STEP_NUM_TASKS'"},
    {"SrunWithPmiForTwo", kTask + Variables{{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"PMIX_RANK", "1"}}, kTwo,
     "error: --nproc: this process is rank 1 of 2 already"},
    {"MpiexecForTwo", kHydra, kTwo, "error: --nproc: this process is rank 1 of 2 already (PMI_RANK=1, PMI_SIZE=2)"},
    {"PodForTwo", kPod, kTwo, "error: --nproc: this process is rank 1 of 2 already"},
    {"SrunAndAScriptThatAgreesForTwo", kTask + Variables{{"RANK", "1"}, {"WORLD_SIZE", "2"}}, kTwo, "error: --nproc"},
    {"RankWithoutMaster", kRank, kNone, "error: MASTER_ADDR: is not set, although RANK=3, WORLD_SIZE=4 are",
     "'unset RANK WORLD_SIZE' to run alone"},
    {"RankWithoutPort", kRank + Variables{{"MASTER_ADDR", "head"}}, kNone, "error: MASTER_PORT: is not set"},
    {"RankWithoutPlace", kRank + kMaster, kNone, "error: LOCAL_RANK: is not set, although RANK is",
     "set it to the number of this rank on its machine"},
    {"OtherRank",
     {{"RANK", "3"}},
     kNone,
     "error: RANK: is 3, and RANK and WORLD_SIZE are not both set",
     "'unset RANK' to run alone"},
    {"OtherLocalRank", {{"LOCAL_RANK", "1"}, {"WORLD_SIZE", "2"}}, kNone, "error: LOCAL_RANK: is 1"},
    {"PodOfManyProcesses", kPod + Variables{{"PET_NNODES", "2"}, {"PET_NPROC_PER_NODE", "8"}, {"WORLD_SIZE", "16"}},
     kNone, "error: PET_NPROC_PER_NODE: is 8, and torchrun has not started this process",
     "'torchrun --no-python mixtune ...' in each pod"},
    {"PodForTorchrun",
     {{"PET_NNODES", "2"}, {"PET_NODE_RANK", "1"}},
     kTwo,
     "error: PET_NNODES: is 2, and torchrun has not started this process",
     "'unset PET_NNODES' to run alone"},
    {"SrunThatContradicts", kTask + kRank + kMaster, kNone,
     "error: RANK=3, WORLD_SIZE=4: they do not say what SLURM_PROCID=1, SLURM_STEP_NUM_TASKS=2 do",
     "'unset RANK WORLD_SIZE' if they were left behind, else 'unset SLURM_PROCID SLURM_STEP_NUM_TASKS'"},
    {"MpirunThatContradicts", kOpenMpi + kRank, kNone, "error: RANK=3, WORLD_SIZE=4: they do not say what OMPI_"},
    {"MpiexecOnSeveralMachines", kHydra + Variables{{"MPI_LOCALNRANKS", "1"}, {"MPI_LOCALRANKID", "0"}}, kNone,
     "error: MASTER_ADDR: is not set", "run mpiexec -genv MASTER_ADDR HOST"},
    {"MpiexecWithoutPlace", {{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}}, kNone, "error: MPI_LOCALRANKID: is not set"},
    {"MpiexecWithoutSize", {{"PMI_RANK", "1"}}, kNone, "error: PMI_SIZE: is not set, although PMI_RANK is"},
    {"Pmix", {{"PMIX_RANK", "1"}}, kNone, "error: PMIX_RANK: is set, and nothing says how many ranks there are"},
};

std::string name_of(const testing::TestParamInfo<Row>& row) {
  return row.param.name;
}

INSTANTIATE_TEST_SUITE_P(Alone, LaunchTable, testing::ValuesIn(kAlone), name_of);
INSTANTIATE_TEST_SUITE_P(Ranks, LaunchTable, testing::ValuesIn(kRanks), name_of);
INSTANTIATE_TEST_SUITE_P(Errors, LaunchTable, testing::ValuesIn(kErrors), name_of);

}  // namespace
}  // namespace mixtune
