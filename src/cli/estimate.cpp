#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/log.h"
#include "base/size.h"
#include "cli/arguments.h"
#include "cli/preflight.h"
#include "cli/ranks.h"
#include "config/load.h"
#include "train/instance_options.h"
#include "train/memory_plan.h"
#include "train/memory_search.h"
#include "train/model_tokenizer.h"

namespace mixtune {

namespace {

struct EstimateArguments {
  std::string config_file;
  std::string memory;
  bool search = false;
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

// What a GPU of `memory` can do: a sentence, and whether that is to train.
struct Verdict {
  bool fits;
  std::string text;
};

Verdict verdict(const MemoryPlan& balanced, const MemoryPlan& worst, size_t memory,
                const std::function<double(size_t)>& share) {
  if (worst.total() <= memory) return {true, "fits"};
  if (worst.least() <= memory)
    return {true, balanced.total() <= memory ? "fits; where routing is uneven, some layers will recompute"
                                             : "fits, with some layers recomputed in every step"};
  if (balanced.least() <= memory)
    return {true,
            fmt::format("fits, until {}; --search finds what fits any routing",
                        describe_share(reserved_share(share(memory - (worst.least() - worst.least_activations)))))};
  return {false, "does not fit"};
}

// As a shell takes it.
std::string quoted(const std::string& word) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:=@,+-";
  if (!word.empty() && word.find_first_not_of(kPlain) == word.npos) return word;
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? "'\\''" : std::string(1, c);
  return out + "'";
}

std::string train_command(const EstimateArguments& arguments, const Overrides& overrides, const Fit& fit) {
  std::string command = "mixtune train";
  if (!arguments.config_file.empty()) command += " " + quoted(arguments.config_file);
  for (const auto& [key, value] : overrides)
    if (std::ranges::find(fit.changes, key, &Change::key) == fit.changes.end())
      command += fmt::format(" --{} {}", key, quoted(value));
  if (fit.ranks > 1) command += fmt::format(" --nproc {}", fit.ranks);
  for (const Change& change : fit.changes) command += fmt::format(" --{} {}", change.key, change.value);
  return command;
}

void print_fit(const EstimateArguments& arguments, const Overrides& overrides, const Fit& fit, size_t memory) {
  std::vector<std::string> other;
  if (fit.other_batch > 0) other.push_back(fmt::format("a global batch of {} rows", fit.other_batch));
  for (const Change& change : fit.changes)
    if (change.changes_numbers) other.push_back(change.key);
  fmt::print("fits on {} GPU{} of {} ({} needed){}:\n  {}\n", fit.ranks, fit.ranks == 1 ? "" : "s",
             format_bytes(memory), format_bytes(fit.bytes),
             other.empty() ? "" : fmt::format(", with other numbers ({})", fmt::join(other, ", ")),
             train_command(arguments, overrides, fit));
}

void print_search(const EstimateArguments& arguments, const Overrides& overrides, const MixtralConfig& shape,
                  const Config& config, size_t memory) {
  const std::vector<Fit> fits = search_fits(shape, config, arguments.ranks, memory);
  for (const Fit& fit : fits) print_fit(arguments, overrides, fit, memory);
  if (fits.empty()) fmt::print("nothing that mixtune can set makes it fit; try a shorter max_seq_length\n");
}

size_t memory_of_gpu(const EstimateArguments& arguments) {
  try {
    if (!arguments.memory.empty()) return parse_size(arguments.memory);
  } catch (const UserError& error) {
    throw UserError("--gpu-memory", error.what(), "");
  }
  if (gpu_count() > 0) return gpu_info(0).memory;
  if (arguments.search)
    throw UserError("--search", "there is no GPU here to fit", "say how large one is: --gpu-memory 79GiB");
  return 0;
}

void run_estimate(const EstimateArguments& arguments, const Overrides& overrides) {
  Config config =
      load_config(arguments.config_file.empty() ? std::nullopt : std::optional(arguments.config_file), overrides);
  require_keys(config, {"model_name_or_path"});
  config.model.model_name_or_path = find_model(config.model.model_name_or_path, config.where("model_name_or_path"));
  const MixtralConfig shape = resize_vocabulary(config.model, load_mixtral_config(config.model.model_name_or_path));
  const Ranks ranks = planned_ranks(grid_of(config, shape.num_local_experts, arguments.ranks));
  const InstanceOptions options = planned_options(config, ranks);
  const size_t memory = memory_of_gpu(arguments);
  const int64_t rows = config.batch.per_device_train_batch_size, length = config.data.max_seq_length;
  const BatchLimits limits = {.tokens = rows * length, .longest_document = length, .documents = rows};
  const MemoryPlan balanced = plan_memory(shape, options, limits, kEvenRouting);
  const MemoryPlan worst = plan_memory(shape, options, limits, kWorstRouting);
  fmt::print("memory of one GPU{} for micro-batches of {} x {} tokens\n",
             arguments.ranks > 1 ? fmt::format(" ({})", ranks.grid.str()) : "", rows, length);
  print_plans(balanced, worst);
  if (const std::string trained = describe_trained(options.freeze, options.lora, shape); !trained.empty())
    fmt::print("{}\n", trained);
  if (memory == 0) return;
  const Verdict found =
      verdict(balanced, worst, memory, [&](size_t bytes) { return share_that_fits(shape, options, limits, bytes); });
  fmt::print("a GPU of {}: {}\n", format_bytes(memory), found.text);
  if (arguments.search || !found.fits) print_search(arguments, overrides, shape, config, memory);
  if (!found.fits) throw Ended{static_cast<int>(ExitCode::kFailed)};
}

}  // namespace

Command add_estimate(CLI::App& program) {
  CLI::App* app = program.add_subcommand("estimate", "Print the GPU memory that a training run will need");
  const auto arguments = std::make_shared<EstimateArguments>();
  app->add_option("CONFIG", arguments->config_file, "YAML file of keys; flags override it")->type_name("");
  app->add_option("--gpu-memory", arguments->memory,
                  "of the GPU to fit: 79GiB for an H100 80GB, 140GiB for an H200; default: this machine's")
      ->type_name("SIZE");
  app->add_flag("--search", arguments->search,
                "Look for the fewest GPUs and the least changes that fit, as is done where the run does not fit");
  app->add_option("--nproc", arguments->ranks, "the ranks of the run, one a GPU, on all machines together")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  add_examples(*app, {"mixtune estimate examples/quickstart/train.yaml --gpu-memory 24GiB",
                      "mixtune estimate --model_name_or_path examples/quickstart/pretrained --precision bf16 --nproc 2 "
                      "--expert_model_parallel_size 2"});
  return {app, [arguments, flags = KeyFlags(*app)] {
            run_estimate(*arguments, flags.overrides());
          }};
}

}  // namespace mixtune
