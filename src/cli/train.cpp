#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include <CLI/CLI.hpp>

#include "base/contained.h"
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

std::string sizes_of_weights(const std::string& folder) {
  std::string text;
  for (const std::string& name : regular_files(folder)) {
    std::error_code gone;
    if (name.ends_with(".safetensors"))
      text += fmt::format("{} {}\n", name, std::filesystem::file_size(folder + "/" + name, gone));
  }
  return text;
}

Entries fingerprint_of_run(const Config& config, Device device, int ranks) {
  const std::string &model = config.model.model_name_or_path, checkpoint = checkpoint_of(config);
  Entries entries = fingerprint(config, device, ranks);
  entries["checkpoint to go on from"] = std::filesystem::path(checkpoint).filename().string();
  entries["checkpoint"] = hash_of_text(read_config_json(model)) + "\n" + sizes_of_weights(model);
  return entries;
}

// The run has said why it was stopped.
void end_if(bool stopped) {
  if (stopped) throw Ended{static_cast<int>(ExitCode::kStopped)};
}

void train_as_rank(const Config& given, const Launch& launch, bool profile) {
  Config config = given;
  const auto connect = [&](Job& job) {
    resolve_global_batch_size(config, launch.size);
    const Device device = choose_device(config.machine.device, launch.local_rank);
    job.compare(fingerprint_of_run(given, device, launch.size));
    const int64_t experts = load_mixtral_config(config.model.model_name_or_path).num_local_experts;
    return job.connect(device, grid_of(config, experts, launch.size, launch.rank));
  };
  bool stopped = false;
  run_as_rank(config, launch, connect, [&](const Ranks& ranks) { stopped = train(config, profile, ranks); });
  end_if(stopped);
}

void train_on_ranks(const Config& config, int count) {
  Config checked = config;
  resolve_global_batch_size(checked, count);
  grid_of(config, load_mixtral_config(config.model.model_name_or_path).num_local_experts, count);
  check_gpus(config, count);
  supervise_ranks(config, count);
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
  if (!arguments.dry_run)
    instance_options(config, State::Purpose::kTraining);  // the keys fit each other and the machine
  const auto launch = launch_of_process(arguments.ranks);
  if (arguments.dry_run && launch && launch->rank != 0) return;  // rank 0 says the same
  const bool leads = !launch || (launch->rank == 0 && !launch->supervised);
  for (const std::string& line : megatron.lines)
    if (leads) log_info("{}", line);
  choose_checkpoint(config, leads);
  if (config.begun_from.empty())
    config.model.model_name_or_path =
        find_model(config.model.model_name_or_path, config.where("model_name_or_path"), leads);
  if (std::string& adapter = config.adapter.adapter_name_or_path; !adapter.empty() && config.adapter_checkpoint.empty())
    adapter = find_adapter(adapter, leads);
  apply_to_model(megatron, config);
  check_data_files(config);
  if (arguments.dry_run) return run_dry(config, launch, arguments.ranks);
  if (launch) return train_as_rank(config, *launch, arguments.profile);
  if (arguments.ranks > 1) return train_on_ranks(config, arguments.ranks);
  grid_of(config, 1, 1);  // there are no ranks to spread experts over
  Config alone = config;
  resolve_global_batch_size(alone, 1);
  end_if(train(alone, arguments.profile, single_rank()));
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
