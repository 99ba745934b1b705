#include "job/launch.h"

#include <fmt/format.h>

#include <utility>

#include "base/error.h"
#include "job/launchers.h"

namespace mixtune {

namespace {

std::string ignored(const std::string& variables, std::string_view why) {
  if (variables.empty()) return "";
  const bool several = variables.find(", ") != std::string::npos;
  return fmt::format("{} {} ignored: {}", variables, several ? "are" : "is", why);
}

std::string variables_of(const LaunchVariables& variables, const Claim& claim) {
  return variables.list({claim.launcher->rank, claim.launcher->size});
}

Start as_rank(const LaunchVariables& variables, const Claim& claim, Launch rank, const StartOptions& options) {
  if (options.nproc > 0)
    throw UserError("--nproc",
                    fmt::format("this process is rank {} of {} already ({})", claim.rank, claim.size,
                                variables_of(variables, claim)),
                    fmt::format("leave it out, or {} to start ranks here", claim.unset()));
  return {.rank = std::move(rank), .ignored = ""};
}

// A pod's variables are torchrun's: it must start the ranks there.
[[noreturn]] void refuse_without_torchrun(const LaunchVariables& variables, const char* name,
                                          const std::string& alone) {
  throw UserError(name, fmt::format("is {}, and torchrun has not started this process", printable(variables.get(name))),
                  "run 'torchrun --no-python mixtune ...' in each pod, " + alone);
}

// Starts by RANK and WORLD_SIZE without another launcher: torchrun's, an operator's, or left behind.
Start by_pytorch(const LaunchVariables& variables, const Claim& claim, const StartOptions& options) {
  const std::string both = variables_of(variables, claim);
  if (!variables.has("LOCAL_RANK")) {
    if (variables.get("PET_NNODES") == "1")
      return {.rank = {}, .ignored = ignored(both, "PET_NNODES=1, and torchrun has not started this process")};
    if (variables.number_or_none("PET_NPROC_PER_NODE") > 1)
      refuse_without_torchrun(variables, "PET_NPROC_PER_NODE", claim.or_alone());
  }
  if (options.nproc > 0 && !(variables.has("MASTER_ADDR") && variables.has("MASTER_PORT")))
    return {.rank = {}, .ignored = ignored(both, "without MASTER_ADDR and MASTER_PORT there is no job to join")};
  return as_rank(variables, claim, rank_of_pytorch(variables, claim), options);
}

// Starts as a rank of an MPI launcher or of srun. Other variables of PyTorch do not count.
Start by_launcher(const LaunchVariables& variables, const Claim& claim, const StartOptions& options) {
  Start start = as_rank(variables, claim, rank_of_launcher(variables, claim), options);
  std::string others;
  for (const auto& [name, value] : {std::pair("RANK", start.rank->rank), std::pair("WORLD_SIZE", start.rank->size),
                                    std::pair("LOCAL_RANK", start.rank->local_rank)})
    if (variables.has(name) && variables.number_or_none(name) != value)
      others += (others.empty() ? "" : ", ") + variables.list({name});
  start.ignored = ignored(others, variables_of(variables, claim) + " count");
  return start;
}

// Starts where both make this process one of several ranks. They must say the same.
Start by_both(const LaunchVariables& variables, const Claim& pytorch, const Claim& launcher,
              const StartOptions& options) {
  if (pytorch.rank != launcher.rank || pytorch.size != launcher.size)
    throw UserError(variables_of(variables, pytorch),
                    fmt::format("they do not say what {} do", variables_of(variables, launcher)),
                    fmt::format("{} if they were left behind, else {}", pytorch.unset(), launcher.unset()));
  Start start = by_launcher(variables, launcher, options);
  if (variables.has("LOCAL_RANK"))
    start.rank->local_rank = variables.number("LOCAL_RANK", 0, pytorch.size - 1, pytorch.unset());
  start.ignored = "";
  return start;
}

void check_pmix(const LaunchVariables& variables) {
  if (variables.has("PMIX_RANK"))
    throw UserError("PMIX_RANK", "is set, and nothing says how many ranks there are",
                    "set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT for each rank, or 'unset PMIX_RANK' "
                    "to run alone");
}

// Throws for variables that make no rank, but say that there are others.
void check_left_behind(const LaunchVariables& variables, const StartOptions& options) {
  for (const char* name : {"RANK", "LOCAL_RANK"})
    if (options.nproc == 0 && variables.number_or_none(name) > 0)
      throw UserError(name, fmt::format("is {}, and RANK and WORLD_SIZE are not both set", variables.get(name)),
                      fmt::format("start all ranks by one launcher, or 'unset {}' to run alone", name));
  if (variables.has("PET_NNODES") && variables.get("PET_NNODES") != "1")
    refuse_without_torchrun(variables, "PET_NNODES", "or 'unset PET_NNODES' to run alone");
}

Start alone(const LaunchVariables& variables, const StartOptions& options) {
  check_left_behind(variables, options);
  Start start;
  start.ignored = ignored(variables.list({"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}),
                          "only RANK and WORLD_SIZE together make this process a rank");
  const bool in_step = variables.has("SLURM_STEP_NUM_TASKS") && !options.at_terminal;
  if (options.nproc == 0 && !in_step && variables.number_or_none("SLURM_NTASKS") > 1)
    start.ignored += (start.ignored.empty() ? "" : "; ") +
                     ignored(variables.list({"SLURM_NTASKS"}),
                             "srun has not started this process; 'srun mixtune ...' or --nproc starts ranks");
  return start;
}

Start alone_in_pytorch(const LaunchVariables& variables) {
  if (variables.number_or_none("LOCAL_RANK") <= 0) return {};
  return {.rank = {}, .ignored = ignored(variables.list({"LOCAL_RANK"}), variables.list({"WORLD_SIZE"}))};
}

}  // namespace

Start start_from(const GetEnv& getenv, const StartOptions& options) {
  const LaunchVariables variables(getenv);
  const auto pytorch = claim_of_pytorch(variables);
  if (pytorch && variables.get("MIXTUNE_SUPERVISED") == "1")
    return as_rank(variables, *pytorch, rank_of_pytorch(variables, *pytorch), options);
  const bool has_agent = pytorch && variables.has("TORCHELASTIC_RUN_ID");
  const auto launcher = has_agent ? std::nullopt : claim_of_launcher(variables, options.at_terminal);
  const bool in_pytorch = pytorch && pytorch->is_job(), in_launcher = launcher && launcher->is_job();
  if (in_pytorch && in_launcher) return by_both(variables, *pytorch, *launcher, options);
  if (in_launcher) return by_launcher(variables, *launcher, options);
  if (in_pytorch) return by_pytorch(variables, *pytorch, options);
  if (pytorch) return alone_in_pytorch(variables);
  if (!launcher && !options.at_terminal) check_pmix(variables);
  return alone(variables, options);
}

}  // namespace mixtune
