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

// This process among the ranks that there will be, for what is checked before they are connected: its groups talk to
// nobody.
Ranks coming_ranks(const std::optional<Launch>& launch, int nproc);

// Whether this process says what all processes of its command would say before ranks are connected.
bool leads(const std::optional<Launch>& launch);

// While it lives, this process logs errors alone, if it is told to be silent.
class Silence {
 public:
  explicit Silence(bool silent);
  ~Silence();
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;

 private:
  bool silent_;
  std::optional<std::string> before_;
};

// A command's work on ranks.
struct RankWork {
  const Config& config;
  std::optional<Launch> launch;      // launch_of_process
  int nproc = 0;                     // --nproc
  std::function<int64_t()> experts;  // how many the model has; asked where there are several ranks
  // What ranks must have in common, by its name in messages, beside the program, each key of the configuration, and of
  // a GPU its driver and NCCL.
  std::function<Entries()> entries = [] {
    return Entries();
  };
  bool reads_input = false;  // rank 0 reads standard input
};

// Calls run(ranks) in every rank: in this process, alone or as the rank that it is; or, with --nproc, in as many
// processes of its command line that are started and waited for. Throws UserError where the key's groups of ranks do
// not fit; Error with the job's one message where it failed, or Ended where another process tells why.
void run_on_ranks(const RankWork& work, const std::function<void(const Ranks&)>& run);

// For RankWork::entries: the folder of a model, and that of an adapter beside it ("": none).
Entries entries_of_model(const std::string& folder, const std::string& adapter = "");
std::string hash_of_text(std::string_view text);

}  // namespace mixtune
