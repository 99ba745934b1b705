// A command on several ranks: starting them on this machine, or being one of them.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "config/config.h"
#include "job/job.h"
#include "job/launch.h"

namespace CLI {
class App;
}

namespace mixtune {

// Adds the flag --nproc.
void add_nproc(CLI::App& app, int& ranks);

// The rank that a launcher says this process is; none where it was started alone. Warns of variables that do not count.
// Throws UserError as start_from does.
std::optional<Launch> launch_of_process(int nproc);

// The key's groups of `ranks`. Throws UserError where there are none.
RankGrid grid_of(const Config& config, int64_t experts, int ranks, int rank = 0);

// Throws UserError where `count` ranks of this machine would have no GPU each, and are not to compute on CPUs.
void check_gpus(const Config& config, int count);

// Runs this process's command line, less --nproc, as `count` ranks, and waits for them. Throws Error with the job's one
// message where it failed.
void supervise_ranks(const Config& config, int count);

// Joins the job as the rank that `launch` says. connect(job) compares what ranks must have in common, and connects
// them; run(ranks) is the rest. Throws Ended where the job failed and another process tells why.
void run_as_rank(const Config& config, const Launch& launch, const std::function<Ranks(Job&)>& connect,
                 const std::function<void(const Ranks&)>& run);

// What every job's ranks must have in common, by its name in messages: the program, each key of the configuration, and
// of a GPU its driver and NCCL.
Entries fingerprint(const Config& config, Device device, int ranks);
std::string hash_of_text(std::string_view text);

}  // namespace mixtune
