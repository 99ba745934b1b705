#include "job/launchers.h"

#include <fmt/format.h>

#include <cstdint>
#include <string_view>

#include "base/error.h"

namespace mixtune {

namespace {

constexpr int kMaxPort = 65535;
constexpr int kMaxRanks = 1 << 20;
// The last number of a step that runs tasks of srun. Above it are a job's batch script and the shell of salloc.
constexpr uint64_t kMaxStep = 0xfffffff0;

constexpr Launcher kPyTorch = {.rank = "RANK", .size = "WORLD_SIZE", .local_rank = "LOCAL_RANK"};
constexpr Launcher kSrun = {.rank = "SLURM_PROCID", .size = "SLURM_STEP_NUM_TASKS", .local_rank = "SLURM_LOCALID"};
// Open MPI, and launchers that descend from it.
constexpr Launcher kOpenMpi = {.rank = "OMPI_COMM_WORLD_RANK",
                               .size = "OMPI_COMM_WORLD_SIZE",
                               .local_rank = "OMPI_COMM_WORLD_LOCAL_RANK",
                               .local_size = "OMPI_COMM_WORLD_LOCAL_SIZE",
                               .set_address = "mpirun -x MASTER_ADDR=HOST"};
constexpr Launcher kMvapich = {.rank = "MV2_COMM_WORLD_RANK",
                               .size = "MV2_COMM_WORLD_SIZE",
                               .local_rank = "MV2_COMM_WORLD_LOCAL_RANK",
                               .local_size = "MV2_COMM_WORLD_LOCAL_SIZE",
                               .set_address = "mpirun_rsh ... MASTER_ADDR=HOST"};
// MPICH's and Intel MPI's launcher.
constexpr Launcher kHydra = {.rank = "PMI_RANK",
                             .size = "PMI_SIZE",
                             .local_rank = "MPI_LOCALRANKID",
                             .local_size = "MPI_LOCALNRANKS",
                             .set_address = "mpiexec -genv MASTER_ADDR HOST"};
constexpr Launcher kCray = {.rank = "PMI_RANK",
                            .size = "PMI_SIZE",
                            .local_rank = "PMI_LOCAL_RANK",
                            .local_size = "PMI_LOCAL_SIZE",
                            .set_address = "mpiexec --env MASTER_ADDR=HOST"};

// A port: the same in all ranks of a job, most likely another in another job, below those that systems give away.
int port_of_job(std::string_view id) {
  uint32_t hash = 2166136261;  // FNV-1a
  for (const char c : id) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619;
  return static_cast<int>(20000 + hash % 12000);
}

int port_in(const LaunchVariables& variables) {
  if (variables.has("MASTER_PORT"))
    return variables.number("MASTER_PORT", 1, kMaxPort, "set it to a port that is free");
  for (const char* id : {"PMIX_NAMESPACE", "PMI_JOBID", "SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID"})
    if (variables.has(id)) return port_of_job(variables.get(id));
  return port_of_job("");
}

// The first node of Slurm's list: "node[03-05,9],other" begins with node03.
std::string first_node(const char* name, std::string_view list) {
  const auto fail = [&] {
    throw UserError(name, fmt::format("is '{}', not a list of nodes", printable(list)), "set MASTER_ADDR");
  };
  std::string node;
  for (size_t i = 0; i < list.size() && list[i] != ','; ++i) {
    if (list[i] != '[') {
      node += list[i];
      continue;
    }
    const size_t close = list.find(']', i);
    if (close == std::string_view::npos) fail();
    const std::string_view inside = list.substr(i + 1, close - i - 1);
    node += inside.substr(0, inside.find_first_of(",-"));
    i = close;
  }
  if (node.empty() || node.find(']') != std::string::npos) fail();
  return node;
}

std::string address_in_slurm(const LaunchVariables& variables) {
  if (variables.has("MASTER_ADDR")) return variables.get("MASTER_ADDR");
  const char* list = variables.has("SLURM_STEP_NODELIST") ? "SLURM_STEP_NODELIST" : "SLURM_JOB_NODELIST";
  return first_node(list, variables.require(list, "SLURM_PROCID is", "set MASTER_ADDR to the machine of rank 0"));
}

// The address of rank 0. Where it is not given and all ranks are here, this machine is the place.
std::string address_in_mpi(const LaunchVariables& variables, const Claim& claim) {
  if (variables.has("MASTER_ADDR")) return variables.get("MASTER_ADDR");
  const Launcher& launcher = *claim.launcher;
  if (variables.number_or_none(launcher.local_size) == claim.size) return "127.0.0.1";
  throw UserError("MASTER_ADDR", "is not set, and the ranks are not all on this machine",
                  fmt::format("run {} with the machine of rank 0 as HOST, {}", launcher.set_address, claim.or_alone()));
}

std::optional<Claim> claim_of(const LaunchVariables& variables, const Launcher& launcher) {
  if (!variables.has(launcher.rank) && !variables.has(launcher.size)) return std::nullopt;
  Claim claim = {.launcher = &launcher, .rank = 0, .size = 1};
  const auto is_set = [](const char* name) {
    return fmt::format("{} is", name);
  };
  const std::string mend = "start all ranks by one launcher, " + claim.or_alone();
  variables.require(launcher.size, is_set(launcher.rank), mend);
  variables.require(launcher.rank, is_set(launcher.size), mend);
  claim.size = variables.number(launcher.size, 1, kMaxRanks, mend);
  claim.rank = variables.number(launcher.rank, 0, claim.size - 1, mend);
  return claim;
}

int local_rank_in(const LaunchVariables& variables, const Claim& claim) {
  const char* name = claim.launcher->local_rank;
  const std::string mend = "set it to the number of this rank on its machine, " + claim.or_alone();
  variables.require(name, fmt::format("{} is", claim.launcher->rank), mend);
  return variables.number(name, 0, claim.size - 1, mend);
}

std::optional<Claim> claim_of_srun(const LaunchVariables& variables) {
  const std::string step = variables.get("SLURM_STEP_ID");
  uint64_t number = 0;
  for (const char c : step) number = c >= '0' && c <= '9' && number < kMaxStep ? number * 10 + (c - '0') : kMaxStep;
  if (step.empty() || number >= kMaxStep) return std::nullopt;
  return claim_of(variables, kSrun);
}

std::optional<Claim> claim_of_mpi(const LaunchVariables& variables) {
  std::optional<Claim> found;
  for (const Launcher* launcher : {&kOpenMpi, &kMvapich, variables.has("PMI_LOCAL_RANK") ? &kCray : &kHydra})
    if (!found || !found->is_job())
      if (const auto claim = claim_of(variables, *launcher)) found = claim;
  return found;
}

}  // namespace

std::string Claim::unset() const {
  return fmt::format("'unset {} {}'", launcher->rank, launcher->size);
}

std::string Claim::or_alone() const {
  return fmt::format("or {} to run alone", unset());
}

std::optional<Claim> claim_of_pytorch(const LaunchVariables& variables) {
  if (!variables.has("RANK") || !variables.has("WORLD_SIZE")) return std::nullopt;
  return claim_of(variables, kPyTorch);
}

// MPI's launchers start their daemons by srun, whose variables are then a daemon's. But srun itself sets some of PMI's,
// which say the same as its own.
std::optional<Claim> claim_of_launcher(const LaunchVariables& variables, bool at_terminal) {
  const auto mpi = claim_of_mpi(variables), srun = claim_of_srun(variables);
  const bool same = mpi && srun && mpi->rank == srun->rank && mpi->size == srun->size;
  if (mpi && mpi->is_job() && !same) return mpi;
  if (srun) return at_terminal ? std::nullopt : srun;
  return mpi;
}

// torchrun's agent may listen at MASTER_PORT itself, for PyTorch's ranks: mixtune's ranks then meet at the next port. A
// pod without a launcher runs one process.
Launch rank_of_pytorch(const LaunchVariables& variables, const Claim& claim) {
  const std::string because = variables.list({"RANK", "WORLD_SIZE"}) + " are", alone = claim.or_alone();
  Launch launch = {.rank = claim.rank, .size = claim.size};
  launch.host = variables.require("MASTER_ADDR", because, "set it to the machine of rank 0, " + alone);
  const std::string mend = "set it to a port that is free on the machine of rank 0, " + alone;
  variables.require("MASTER_PORT", because, mend);
  launch.port = variables.number("MASTER_PORT", 1, kMaxPort, mend);
  if (variables.has("LOCAL_RANK") || !variables.has("KUBERNETES_SERVICE_HOST"))
    launch.local_rank = local_rank_in(variables, claim);
  launch.supervised = variables.get("MIXTUNE_SUPERVISED") == "1";
  if (!launch.supervised && variables.get("TORCHELASTIC_USE_AGENT_STORE") == "True")
    launch.port += launch.port < kMaxPort ? 1 : -1;
  return launch;
}

Launch rank_of_launcher(const LaunchVariables& variables, const Claim& claim) {
  Launch launch = {.rank = claim.rank, .size = claim.size, .local_rank = local_rank_in(variables, claim)};
  launch.host = claim.launcher == &kSrun ? address_in_slurm(variables) : address_in_mpi(variables, claim);
  launch.port = port_in(variables);
  return launch;
}

}  // namespace mixtune
