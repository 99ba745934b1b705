#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include <CLI/CLI.hpp>

#include "base/log.h"
#include "cli/arguments.h"
#include "cli/megatron.h"
#include "cli/preflight.h"
#include "cli/ranks.h"
#include "config/load.h"
#include "model/mixtral_config.h"
#include "run/resume.h"
#include "train/dry_run.h"
#include "train/instance_options.h"
#include "train/loop.h"

namespace mixtune {

namespace {

struct TrainArguments {
  std::string config_file, megatron;
  bool dry_run = false, profile = false;
  int ranks = 0;
};

Entries entries_of_run(const Config& config) {
  Entries entries = entries_of_model(config.model.model_name_or_path);
  entries["checkpoint to go on from"] = std::filesystem::path(checkpoint_of(config)).filename().string();
  return entries;
}

void run_dry(const Config& config, const std::optional<Launch>& launch, int nproc) {
  const int ranks = launch ? launch->size : std::max(nproc, 1);
  const int64_t experts = load_mixtral_config(config.model.model_name_or_path).num_local_experts;
  fmt::print("{}", dry_run(config, grid_of(config, experts, ranks)));
}

void run_train(const TrainArguments& arguments, const Overrides& overrides) {
  const MegatronRun megatron =
      arguments.megatron.empty() ? MegatronRun() : translate(read_megatron_arguments(arguments.megatron));
  Config config = load_config(arguments.config_file.empty() ? std::nullopt : std::optional(arguments.config_file),
                              overrides, megatron.settings);
  require_keys(config, {"model_name_or_path", "train_file", "output_dir"});
  const auto launch = launch_of_process(arguments.ranks);
  if (!arguments.dry_run)  // the keys fit each other and the machine
    instance_options(config, State::Purpose::kTraining, coming_ranks(launch, arguments.ranks));
  if (arguments.dry_run && launch && launch->rank != 0) return;  // rank 0 says the same
  const bool says = leads(launch);
  for (const std::string& line : megatron.lines)
    if (says) log_info("{}", line);
  choose_checkpoint(config, says);
  if (config.begun_from.empty())
    config.model.model_name_or_path =
        find_model(config.model.model_name_or_path, config.where("model_name_or_path"), says);
  if (std::string& adapter = config.adapter.adapter_name_or_path; !adapter.empty() && config.adapter_checkpoint.empty())
    adapter = find_adapter(adapter, says);
  apply_to_model(megatron, config);
  check_data_files(config);
  if (arguments.dry_run) return run_dry(config, launch, arguments.ranks);
  const auto resolved = [&](int ranks) {
    Config run = config;
    resolve_global_batch_size(run, ranks);
    return run;
  };
  if (!launch) resolved(std::max(arguments.ranks, 1));  // refused before a rank is started
  bool stopped = false;
  run_on_ranks({.config = config,
                .launch = launch,
                .nproc = arguments.ranks,
                .experts = [&] { return load_mixtral_config(config.model.model_name_or_path).num_local_experts; },
                .entries =
                    [&] {
                      return entries_of_run(config);
                    }},
               [&](const Ranks& ranks) { stopped = train(resolved(ranks.grid.world), arguments.profile, ranks); });
  if (stopped) throw Ended{static_cast<int>(ExitCode::kStopped)};  // the run has said why
}

}  // namespace

Command add_train(CLI::App& program) {
  CLI::App* app = program.add_subcommand("train", "Fine-tune a model");
  const auto arguments = std::make_shared<TrainArguments>();
  app->add_option("CONFIG", arguments->config_file, "YAML file of keys; flags override it")->type_name("");
  app->add_flag("--dry-run", arguments->dry_run,
                "Check all but the device, print the resolved configuration, steps, tokens and memory, and stop");
  app->add_option("--megatron_args", arguments->megatron,
                  "Megatron-LM's arguments: a list in quotes, or a file of them, as words or YAML; prints what each is "
                  "here (docs/megatron-args.md)")
      ->type_name("FILE|WORDS");
  app->add_flag("--profile", arguments->profile, "Write a trace of one step to output_dir/trace.json");
  add_nproc(*app, arguments->ranks);
  app->footer(
      "Every key is explained in docs/configuration.md. A run that was stopped goes on with "
      "--resume_from_checkpoint auto.");
  add_examples(*app, {"mixtune train examples/quickstart/train.yaml --max_steps 20",
                      "mixtune train --model_name_or_path examples/quickstart/pretrained --train_file "
                      "examples/quickstart/train.jsonl --output_dir out/first --max_seq_length 256 --max_steps 20"});
  return {app, [arguments, flags = KeyFlags(*app)] {
            run_train(*arguments, flags.overrides());
          }};
}

}  // namespace mixtune
