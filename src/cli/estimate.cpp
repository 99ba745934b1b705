#include <fmt/format.h>

#include <memory>
#include <string>

#include <CLI/CLI.hpp>

#include "base/log.h"
#include "base/size.h"
#include "cli/arguments.h"
#include "cli/preflight.h"
#include "cli/ranks.h"
#include "config/load.h"
#include "train/device.h"
#include "train/memory_plan.h"

namespace mixtune {

namespace {

struct EstimateArguments {
  std::string config_file;
  std::string memory;
  int ranks = 1;
};

void print_row(std::string_view name, size_t balanced, size_t worst) {
  fmt::print("  {:<28} {:>12} {:>12}\n", name, format_bytes(balanced), format_bytes(worst));
}

void print_plans(const MemoryPlan& balanced, const MemoryPlan& worst) {
  fmt::print("  {:<28} {:>12} {:>12}\n", "routing", "balanced", "worst case");
  for (size_t i = 0; i < balanced.state.size(); ++i)
    if (balanced.state[i].bytes > 0) print_row(balanced.state[i].name, balanced.state[i].bytes, worst.state[i].bytes);
  print_row("activations", balanced.activations, worst.activations);
  print_row("libraries and workspaces", balanced.libraries, worst.libraries);
  if (balanced.connections > 0) print_row("NCCL's connections", balanced.connections, worst.connections);
  print_row("in all", balanced.total(), worst.total());
}

// The least that the worst case needs, where layers drop what does not fit.
size_t least(const MemoryPlan& worst) {
  return worst.least();
}

std::string verdict(const MemoryPlan& balanced, const MemoryPlan& worst, size_t memory) {
  if (worst.total() <= memory) return "fits";
  if (balanced.total() <= memory && least(worst) <= memory)
    return "fits; where routing is uneven, some layers will recompute";
  if (least(worst) <= memory) return "fits, with some layers recomputed in every step";
  return "does not fit; try recompute: full, optimizer_state_dtype: bf16, or a smaller per_device_train_batch_size";
}

void run_estimate(const EstimateArguments& arguments, const Overrides& overrides) {
  const Config config =
      load_config(arguments.config_file.empty() ? std::nullopt : std::optional(arguments.config_file), overrides);
  require_keys(config, {"model_name_or_path"});
  check_model(config.model.model_name_or_path, config.where("model_name_or_path"));
  const MixtralConfig shape = load_mixtral_config(config.model.model_name_or_path);
  const Ranks ranks = planned_ranks(grid_of(config, shape.num_local_experts, arguments.ranks));
  const InstanceOptions options = planned_options(config, &ranks);
  const size_t memory =
      !arguments.memory.empty() ? parse_size(arguments.memory) : (gpu_count() > 0 ? gpu_info(0).memory : 0);
  const int64_t rows = config.batch.per_device_train_batch_size, length = config.data.max_seq_length;
  const BatchLimits limits = {.tokens = rows * length, .longest_document = length, .documents = rows};
  const MemoryPlan balanced = plan_memory(shape, options, limits, kEvenRouting);
  const MemoryPlan worst = plan_memory(shape, options, limits, kWorstRouting);
  fmt::print("memory of one GPU{} for micro-batches of {} x {} tokens\n",
             arguments.ranks > 1 ? fmt::format(" ({})", ranks.grid.str()) : "", rows, length);
  print_plans(balanced, worst);
  if (memory > 0) fmt::print("a GPU of {}: {}\n", format_bytes(memory), verdict(balanced, worst, memory));
}

}  // namespace

Command add_estimate(CLI::App& program) {
  CLI::App* app = program.add_subcommand("estimate", "Print the GPU memory that a training run will need");
  const auto arguments = std::make_shared<EstimateArguments>();
  app->add_option("CONFIG", arguments->config_file, "YAML file of keys; flags override it")->type_name("");
  app->add_option("--gpu-memory", arguments->memory,
                  "of the GPU to fit: 79GiB for an H100 80GB, 140GiB for an H200; default: this machine's")
      ->type_name("SIZE");
  app->add_option("--nproc", arguments->ranks, "the ranks of the run, one a GPU, on all machines together")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  return {app, [arguments, flags = KeyFlags(*app)] {
            run_estimate(*arguments, flags.overrides());
          }};
}

}  // namespace mixtune
