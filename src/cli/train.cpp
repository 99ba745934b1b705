#include <fmt/format.h>

#include <memory>

#include <CLI/CLI.hpp>

#include "cli/arguments.h"
#include "cli/preflight.h"
#include "train/device.h"
#include "train/loop.h"

namespace mixtune {

namespace {

struct TrainArguments {
  std::string config_file;
  bool dry_run = false, profile = false;
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
  train(config, arguments.profile);
}

}  // namespace

Command add_train(CLI::App& program) {
  CLI::App* app = program.add_subcommand("train", "Fine-tune a model");
  const auto arguments = std::make_shared<TrainArguments>();
  app->add_option("CONFIG", arguments->config_file, "YAML file of keys; flags override it")->type_name("");
  app->add_flag("--dry-run", arguments->dry_run, "Print the resolved configuration and stop");
  app->add_flag("--profile", arguments->profile, "Write a trace of one step to output_dir/trace.json");
  app->footer("Every key is explained in docs/configuration.md. Resuming a run is not supported yet.");
  return {app, [arguments, flags = KeyFlags(*app)] {
            run_train(*arguments, flags.overrides());
          }};
}

}  // namespace mixtune
