#include <fmt/format.h>

#include <cstdlib>
#include <memory>

#include <CLI/CLI.hpp>

#include "cli/arguments.h"
#include "cli/preflight.h"
#include "cli/train_ranks.h"
#include "config/load.h"
#include "parallel/rank_grid.h"
#include "train/device.h"
#include "train/loop.h"

namespace mixtune {

namespace {

struct TrainArguments {
  std::string config_file;
  bool dry_run = false, profile = false;
  int ranks = 0;
};

void run_train(const TrainArguments& arguments, const Overrides& overrides) {
  const Config config =
      load_config(arguments.config_file.empty() ? std::nullopt : std::optional(arguments.config_file), overrides);
  require_keys(config, {"model_name_or_path", "train_file", "output_dir"});
  instance_options(config, State::Purpose::kTraining);  // the keys fit each other and the machine
  check_shard_size(config);
  if (arguments.dry_run) {
    fmt::print("{}", print_config(config));
    return;
  }
  check_model(config.model.model_name_or_path, config.where("model_name_or_path"));
  check_data_files(config);
  const auto launch = launch_from([](const char* name) { return std::getenv(name); });
  if (launch && arguments.ranks > 0)
    throw UserError("--nproc", "the ranks of this job were started by a launcher already", "leave it out");
  if (launch) return train_as_rank(config, *launch, arguments.profile);
  if (arguments.ranks > 1) return supervise_ranks(config, arguments.ranks);
  make_rank_grid(1, 0, static_cast<int>(config.parallel.expert_model_parallel_size), 1,
                 config.where("expert_model_parallel_size"));  // there are no ranks to spread experts over
  Config alone = config;
  resolve_global_batch_size(alone, 1);
  train(alone, arguments.profile);
}

}  // namespace

Command add_train(CLI::App& program) {
  CLI::App* app = program.add_subcommand("train", "Fine-tune a model");
  const auto arguments = std::make_shared<TrainArguments>();
  app->add_option("CONFIG", arguments->config_file, "YAML file of keys; flags override it")->type_name("");
  app->add_flag("--dry-run", arguments->dry_run, "Print the resolved configuration and stop");
  app->add_flag("--profile", arguments->profile, "Write a trace of one step to output_dir/trace.json");
  app->add_option("--nproc", arguments->ranks, "Start this many ranks on this machine and train on all of them")
      ->type_name("N")
      ->check(CLI::Range(1, 1024));
  app->footer("Every key is explained in docs/configuration.md. Resuming a run is not supported yet.");
  return {app, [arguments, flags = KeyFlags(*app)] {
            run_train(*arguments, flags.overrides());
          }};
}

}  // namespace mixtune
