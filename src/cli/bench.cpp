#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>

#include "base/output_file.h"
#include "base/size.h"
#include "base/staged.h"
#include "bench/kernels.h"
#include "bench/ladder.h"
#include "bench/load.h"
#include "bench/save.h"
#include "bench/step.h"
#include "cli/arguments.h"
#include "cli/preflight.h"
#include "cli/ranks.h"
#include "config/load.h"
#include "train/instance_options.h"

namespace mixtune {

namespace {

const CLI::Range kCount(int64_t{1}, int64_t{1} << 24);

InstanceOptions options_of(const KeyFlags& flags, State::Purpose purpose) {
  return instance_options(load_config(std::nullopt, flags.overrides()), purpose);
}

// The flags that a benchmark of a shape has: which shape, and where its figures go.
struct Common {
  std::string model_config, json;

  void add_to(CLI::App& app) {
    app.add_option("--model-config", model_config, "config.json of the shape; default: Mixtral 8x7B's")
        ->type_name("FILE");
    app.add_option("--json", json, "write the figures to this new file too")->type_name("FILE");
  }

  MixtralConfig model(int64_t layers) const {
    if (model_config.empty()) return mixtral_8x7b(layers);
    constexpr size_t kMaxConfigBytes = 1 << 20;
    MixtralConfig model = parse_mixtral_config(read_small_file(model_config, kMaxConfigBytes, "give a config.json"),
                                               printable(model_config, 200));
    model.num_hidden_layers = layers;
    return model;
  }

  // The file is known to be possible before anything is measured.
  void check() const {
    if (!json.empty()) check_output_file(json, false);
  }

  template <class Bench, class Result>
  void report(const Bench& bench, const Result& result) const {
    fmt::print("{}", print_table(bench, result));
    if (!json.empty()) write_whole_file(json, print_json(bench, result), Existing::kRefused);
  }
};

template <class Number>
CLI::Option* add_number(CLI::App* app, const char* name, Number& number, const char* help, const char* type = "N") {
  return app->add_option(name, number, help)->type_name(type)->capture_default_str();
}

// What all benches of steps are told.
struct StepArguments {
  int ranks = 0;
  Common common;
  std::string mode = "step";
  int64_t layers = 2;
  StepBench bench;
  const CLI::Option* sequence_length = nullptr;
};

BenchMode parse_mode(const std::string& mode) {
  return mode == "forward" ? BenchMode::kForward : (mode == "step" ? BenchMode::kStep : BenchMode::kForwardBackward);
}

void check_shape(const StepBench& bench) {
  if (bench.sequence_length % bench.documents_per_row != 0 || bench.tokens % bench.sequence_length != 0)
    throw UserError("--tokens",
                    fmt::format("{} tokens are not whole rows of {} with {} documents each", bench.tokens,
                                bench.sequence_length, bench.documents_per_row),
                    "make --tokens a multiple of --sequence-length, and that one of --documents-per-row");
}

// The bench with the options of a rank.
StepBench with_options(StepBench bench, const Config& config, const Ranks& ranks) {
  bench.options = instance_options(config, State::Purpose::kTraining, ranks);
  int64_t& padded = bench.options.capacity.padded_tokens;
  if (padded > 0) padded = bench.tokens;
  return bench;
}

// Calls `measure` with what plan(bench, config, ranks) gives in every rank of the bench, and whether it reports: rank 0
// does. What it is refused for is known in every process before a rank is started.
template <class Plan, class Measure>
void on_ranks(const StepArguments& arguments, const KeyFlags& flags, const Plan& plan, const Measure& measure) {
  const Config config = load_config(std::nullopt, flags.overrides());
  StepBench bench = arguments.bench;
  bench.mode = parse_mode(arguments.mode);
  bench.model = arguments.common.model(arguments.layers);
  if (arguments.sequence_length->count() == 0) bench.sequence_length = std::min(bench.sequence_length, bench.tokens);
  check_shape(bench);
  arguments.common.check();
  const auto launch = launch_of_process(arguments.ranks);
  plan(bench, config, coming_ranks(launch, arguments.ranks));
  run_on_ranks({.config = config,
                .launch = launch,
                .nproc = arguments.ranks,
                .experts =
                    [&] {
                      return bench.model.num_local_experts;
                    }},
               [&](const Ranks& ranks) { measure(plan(bench, config, ranks), ranks.grid.rank == 0); });
}

// The options of all benches of steps.
void add_step_options(CLI::App* app, StepArguments& arguments) {
  StepBench& bench = arguments.bench;
  arguments.common.add_to(*app);
  add_number(app, "--layers", arguments.layers, "layers")->check(kCount);
  add_number(app, "--tokens", bench.tokens, "tokens of a micro-batch")->check(kCount);
  arguments.sequence_length =
      add_number(app, "--sequence-length", bench.sequence_length, "tokens of a row; by itself no more than --tokens")
          ->check(kCount);
  add_nproc(*app, arguments.ranks);
  add_number(app, "--steps", bench.steps, "steps to take the median of")->check(kCount);
  add_number(app, "--settle", bench.settle, "seconds of steps before those", "SECONDS")->check(CLI::NonNegativeNumber);
}

// The options of a step beside those of a save's.
void add_batch_options(CLI::App* app, StepArguments& arguments) {
  StepBench& bench = arguments.bench;
  add_number(app, "--documents-per-row", bench.documents_per_row, "documents packed into a row")->check(kCount);
  add_number(app, "--accumulate", bench.accumulate, "micro-batches of a step")->check(kCount);
  app->add_flag("--balanced", bench.balanced, "Give every expert the same number of tokens");
  add_number(app, "--clip", bench.max_grad_norm, "compute the gradient's norm and clip to this; 0: neither", "NUMBER")
      ->check(CLI::NonNegativeNumber);
}

// A ladder chooses the last but one itself; the last is for saves alone.
constexpr std::array<std::string_view, 22> kStepKeys = {"adapter",
                                                        "base_precision",
                                                        "lora_r",
                                                        "lora_target_modules",
                                                        "moe_expert_capacity_factor",
                                                        "moe_token_drop_policy",
                                                        "moe_pad_expert_input_to_capacity",
                                                        "device",
                                                        "deterministic",
                                                        "precision",
                                                        "fp8_scaling",
                                                        "fp8_power_of_two_scales",
                                                        "master_weights",
                                                        "gradient_dtype",
                                                        "optimizer_state_dtype",
                                                        "recompute",
                                                        "expert_model_parallel_size",
                                                        "zero_stage",
                                                        "cuda_graphs",
                                                        "collective_timeout",
                                                        "experts_implementation",
                                                        "checkpoint_host_memory"};

Command add_step(CLI::App& group) {
  CLI::App* app = group.add_subcommand("step", "A training step on random weights and tokens");
  const auto arguments = std::make_shared<StepArguments>();
  add_step_options(app, *arguments);
  add_batch_options(app, *arguments);
  add_number(app, "--mode", arguments->mode, "what is timed: forward, forward-backward or step", "NAME")
      ->check(CLI::IsMember({"forward", "forward-backward", "step"}));
  const KeyFlags flags(*app, {kStepKeys.begin(), kStepKeys.end() - 1});
  add_examples(*app,
               {"mixtune bench step --model-config examples/quickstart/model.json --tokens 512 --steps 3 --settle 0",
                "mixtune bench step --model-config examples/quickstart/model.json --tokens 512 --steps 3 --settle 0 "
                "--mode forward --balanced"});
  return {app, [arguments, flags] {
            on_ranks(*arguments, flags, with_options, [&](const StepBench& measured, bool reports) {
              const StepBenchResult result = bench_step(measured);
              if (reports) arguments->common.report(measured, result);
            });
          }};
}

struct LadderArguments {
  StepArguments step;
  int rounds = 3;
  std::string peers, svg;
};

void run_ladder(const LadderArguments& arguments, const KeyFlags& flags) {
  const std::string &svg = arguments.svg, &json = arguments.step.common.json;
  if (!svg.empty()) check_output_file(svg, false);
  if (!svg.empty() && svg == json) throw UserError("--svg", "is the file of --json too", "give another name");
  on_ranks(arguments.step, flags, plan_ladder, [&](LadderBench bench, bool reports) {
    bench.rounds = arguments.rounds;
    if (reports && !arguments.peers.empty()) bench.peers = read_ladder_peers(arguments.peers, bench);
    const LadderResult result = bench_ladder(bench);
    if (!reports) return;
    arguments.step.common.report(bench, result);
    if (!svg.empty()) write_whole_file(svg, print_svg(bench, result), Existing::kRefused);
  });
}

Command add_ladder(CLI::App& group) {
  CLI::App* app = group.add_subcommand("ladder", "A training step of each kind: experts in a loop, grouped, in 8 bits");
  const auto arguments = std::make_shared<LadderArguments>();
  add_step_options(app, arguments->step);
  add_batch_options(app, arguments->step);
  add_number(app, "--rounds", arguments->rounds, "turns of each rung; the one with the median time counts")
      ->check(kCount);
  app->add_option("--svg", arguments->svg, "draw the figures into this new file")->type_name("FILE");
  app->add_option("--peers", arguments->peers, "add the rows of this file (bench/peers/ladder.py makes it)")
      ->type_name("FILE");
  const KeyFlags flags(*app, {kStepKeys.begin(), kStepKeys.end() - 2});
  add_examples(*app, {"mixtune bench ladder --model-config examples/quickstart/model.json --tokens 256 --steps 2 "
                      "--settle 0 --rounds 1",
                      "mixtune bench ladder --model-config examples/quickstart/model.json --tokens 256 --steps 2 "
                      "--settle 0 --rounds 1 --balanced --json ladder.json --svg ladder.svg"});
  return {app, [arguments, flags] {
            run_ladder(*arguments, flags);
          }};
}

Command add_save(CLI::App& group) {
  CLI::App* app = group.add_subcommand("save", "Checkpoints: what they cost training, and how fast they are written");
  const auto arguments = std::make_shared<StepArguments>();
  const auto folder = std::make_shared<std::string>();
  app->add_option("FOLDER", *folder, "new folder for the checkpoints, which stay there")->type_name("")->required();
  const auto cold = std::make_shared<bool>();
  app->add_flag("--cold", *cold, "have the system forget the files before they are read again");
  add_step_options(app, *arguments);
  const KeyFlags flags(*app, {kStepKeys.begin(), kStepKeys.end()});
  add_examples(*app, {"mixtune bench save out/bench-save --model-config examples/quickstart/model.json --tokens 512 "
                      "--steps 3 --settle 0",
                      "mixtune bench save out/bench-ranks --model-config examples/quickstart/model.json --tokens 256 "
                      "--steps 3 --settle 0 --nproc 2 --checkpoint_host_memory 64MiB"});
  return {app, [arguments, folder, cold, flags] {
            SaveBench bench = {.step = {}, .folder = *folder, .cold = *cold};
            const Config config = load_config(std::nullopt, flags.overrides());
            if (const std::string& memory = config.output.checkpoint_host_memory; memory != "auto")
              bench.host_memory = parse_size(memory);
            on_ranks(*arguments, flags, with_options, [&](const StepBench& measured, bool reports) {
              bench.step = measured;
              const SaveBenchResult result = bench_save(bench);
              if (reports) arguments->common.report(bench, result);
            });
          }};
}

struct KernelArguments {
  Common common;
  KernelBench bench;
};

void run_kernels(KernelArguments arguments, const KeyFlags& flags) {
  KernelBench& bench = arguments.bench;
  bench.options = options_of(flags, State::Purpose::kInference);
  if (bench.options.recipe.eight_bit)
    throw UserError("--precision", "the ops that are measured alone are those of fp32 and bf16",
                    "use one of these; 'mixtune bench step' shows the parts of a step in 8 bits");
  bench.model = arguments.common.model(1);
  arguments.common.check();
  arguments.common.report(bench, bench_kernels(bench));
}

Command add_kernels(CLI::App& group) {
  CLI::App* app = group.add_subcommand("kernels", "Each op by itself, against the device's copy and GEMM rates");
  const auto arguments = std::make_shared<KernelArguments>();
  KernelBench& bench = arguments->bench;
  arguments->common.add_to(*app);
  add_number(app, "--tokens", bench.tokens, "tokens of a micro-batch")->check(kCount);
  add_number(app, "--document-tokens", bench.document_tokens, "tokens of a document")->check(kCount);
  add_number(app, "--runs", bench.runs, "runs to take the median of")->check(kCount);
  add_number(app, "--settle", bench.settle, "seconds of each op before those", "SECONDS")
      ->check(CLI::NonNegativeNumber);
  const KeyFlags flags(*app, {"device", "deterministic", "precision", "gradient_dtype"});
  add_examples(*app, {"mixtune bench kernels --model-config examples/quickstart/model.json --tokens 256 "
                      "--document-tokens 128 --runs 3 --settle 0",
                      "mixtune bench kernels --model-config examples/quickstart/model.json --tokens 256 "
                      "--document-tokens 128 --runs 3 --settle 0 --deterministic"});
  return {app, [arguments, flags] {
            run_kernels(*arguments, flags);
          }};
}

Command add_load(CLI::App& group) {
  CLI::App* app = group.add_subcommand("load", "Reading a checkpoint's weights onto the device");
  const auto folder = std::make_shared<std::string>();
  app->add_option("FOLDER", *folder, "folder of a checkpoint")->type_name("")->required();
  const KeyFlags flags(*app, {"device", "precision"});
  add_examples(*app, {"mixtune bench load examples/quickstart/pretrained",
                      "mixtune bench load examples/quickstart/pretrained --device cpu"});
  return {app, [folder, flags] {
            const InstanceOptions options = options_of(flags, State::Purpose::kInference);
            fmt::print("{}", bench_load(find_model(*folder, "FOLDER"), options));
          }};
}

}  // namespace

Command add_bench(CLI::App& program) {
  CLI::App* app = program.add_subcommand("bench", "Measure speed: of a training step, of each op, of checkpoints");
  Command bench = {app, {}, {add_step(*app), add_ladder(*app), add_kernels(*app), add_save(*app), add_load(*app)}};
  add_examples(*app,
               {"mixtune bench step --model-config examples/quickstart/model.json --tokens 512 --steps 3 --settle 0",
                "mixtune bench load examples/quickstart/pretrained"});
  return bench;
}

}  // namespace mixtune
