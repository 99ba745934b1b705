#include "parallel/launch.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdint>
#include <string_view>

#include "base/error.h"

namespace mixtune {

namespace {

constexpr int kMaxPort = 65535;
constexpr int kMaxRanks = 1 << 20;

class Environment {
 public:
  explicit Environment(const std::function<const char*(const char*)>& getenv) : getenv_(getenv) {}

  // "" where it is not set.
  std::string get(const char* name) const {
    const char* value = getenv_(name);
    return value == nullptr ? "" : value;
  }
  bool has(const char* name) const { return !get(name).empty(); }

  std::string require(const char* name, const char* because) const {
    std::string value = get(name);
    if (value.empty())
      throw UserError(name, fmt::format("is not set, although {} is", because), "start all ranks by one launcher");
    return value;
  }

  int number(const char* name, const char* because, int lowest, int highest) const {
    const std::string text = require(name, because);
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < lowest || value > highest)
      throw UserError(name, fmt::format("is '{}', not a number from {} to {}", printable(text), lowest, highest),
                      "see what launched this process");
    return value;
  }

 private:
  const std::function<const char*(const char*)>& getenv_;
};

struct Names {
  const char *rank, *size, *local_rank;
};

Launch ranks_in(const Environment& environment, const Names& names) {
  Launch launch;
  launch.size = environment.number(names.size, names.rank, 1, kMaxRanks);
  launch.rank = environment.number(names.rank, names.size, 0, launch.size - 1);
  launch.local_rank = environment.number(names.local_rank, names.rank, 0, launch.size - 1);
  return launch;
}

// The same port in all ranks of a job, and most likely another in another job: below those that systems give away.
int port_of_job(std::string_view id) {
  uint32_t hash = 2166136261;  // FNV-1a
  for (const char c : id) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619;
  return static_cast<int>(20000 + hash % 12000);
}

int port_in(const Environment& environment, std::string_view job) {
  if (environment.has("MASTER_PORT")) return environment.number("MASTER_PORT", "", 1, kMaxPort);
  return port_of_job(job);
}

// The first of Slurm's list of nodes: "node[03-05,9],other" begins with node03.
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

// torchrun's agent may listen at MASTER_PORT itself, for PyTorch's ranks: ours then meet at the next one.
Launch from_torchrun(const Environment& environment) {
  Launch launch = ranks_in(environment, {.rank = "RANK", .size = "WORLD_SIZE", .local_rank = "LOCAL_RANK"});
  launch.host = environment.require("MASTER_ADDR", "RANK");
  launch.port = environment.number("MASTER_PORT", "RANK", 1, kMaxPort);
  launch.supervised = environment.get("MIXTUNE_SUPERVISED") == "1";
  if (!launch.supervised && environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True")
    launch.port += launch.port < kMaxPort ? 1 : -1;
  return launch;
}

std::optional<Launch> from_srun(const Environment& environment) {
  Launch launch =
      ranks_in(environment, {.rank = "SLURM_PROCID", .size = "SLURM_NTASKS", .local_rank = "SLURM_LOCALID"});
  if (launch.size == 1) return std::nullopt;
  const char* list = environment.has("SLURM_STEP_NODELIST") ? "SLURM_STEP_NODELIST" : "SLURM_JOB_NODELIST";
  launch.host = environment.has("MASTER_ADDR") ? environment.get("MASTER_ADDR")
                                               : first_node(list, environment.require(list, "SLURM_PROCID"));
  launch.port =
      port_in(environment, environment.has("MASTER_PORT") ? "" : environment.require("SLURM_JOB_ID", "SLURM_PROCID"));
  return launch;
}

std::optional<Launch> from_mpirun(const Environment& environment) {
  Launch launch = ranks_in(
      environment,
      {.rank = "OMPI_COMM_WORLD_RANK", .size = "OMPI_COMM_WORLD_SIZE", .local_rank = "OMPI_COMM_WORLD_LOCAL_RANK"});
  if (launch.size == 1) return std::nullopt;
  launch.host = environment.get("MASTER_ADDR");
  if (launch.host.empty()) {
    if (environment.number("OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_RANK", 1, kMaxRanks) != launch.size)
      throw UserError("MASTER_ADDR", "is not set, although the ranks are on several machines",
                      "run mpirun -x MASTER_ADDR=<the first machine>");
    launch.host = "127.0.0.1";
  }
  launch.port = port_in(environment, environment.get("PMIX_NAMESPACE"));
  return launch;
}

}  // namespace

std::optional<Launch> launch_from(const std::function<const char*(const char*)>& getenv) {
  const Environment environment(getenv);
  if (environment.has("RANK") || environment.has("WORLD_SIZE")) return from_torchrun(environment);
  // Slurm sets the one in a batch script, the other in an allocation's shell; both are there under srun.
  if (environment.has("SLURM_PROCID") && environment.has("SLURM_NTASKS")) return from_srun(environment);
  if (environment.has("OMPI_COMM_WORLD_RANK") || environment.has("OMPI_COMM_WORLD_SIZE"))
    return from_mpirun(environment);
  return std::nullopt;
}

}  // namespace mixtune
