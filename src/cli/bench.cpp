#include <fmt/format.h>

#include <memory>
#include <string>

#include <CLI/CLI.hpp>

#include "base/output_file.h"
#include "cli/arguments.h"
#include "cli/bench_step.h"
#include "config/load.h"
#include "train/device.h"

namespace mixtune {

namespace {

struct BenchArguments {
  std::string model_config, mode = "step", json;
  int64_t layers = 2;
  StepBench bench;
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

void run_bench(BenchArguments arguments, const Overrides& overrides) {
  const Config config = load_config(std::nullopt, overrides);
  StepBench& bench = arguments.bench;
  bench.mode = parse_mode(arguments.mode);
  bench.model = mixtral_8x7b(arguments.layers);
  if (!arguments.model_config.empty()) {
    constexpr size_t kMaxConfigBytes = 1 << 20;
    bench.model = parse_mixtral_config(read_small_file(arguments.model_config, kMaxConfigBytes, "give a config.json"),
                                       printable(arguments.model_config, 200));
    bench.model.num_hidden_layers = arguments.layers;
  }
  check_shape(bench);
  bench.options = instance_options(config, State::Purpose::kTraining);
  const StepBenchResult result = bench_step(bench);
  fmt::print("{}", print_table(bench, result));
  if (!arguments.json.empty()) write_file(arguments.json, print_json(bench, result));
}

}  // namespace

Command add_bench(CLI::App& program) {
  CLI::App* app = program.add_subcommand("bench", "Measure the speed of a training step on random weights and tokens");
  const auto arguments = std::make_shared<BenchArguments>();
  StepBench& bench = arguments->bench;
  const auto count = CLI::Range(int64_t{1}, int64_t{1} << 24);
  app->add_option("--model-config", arguments->model_config, "config.json of the shape; default: Mixtral 8x7B's")
      ->type_name("FILE");
  app->add_option("--layers", arguments->layers, "layers")->type_name("N")->capture_default_str()->check(count);
  app->add_option("--tokens", bench.tokens, "tokens of a micro-batch")
      ->type_name("N")
      ->capture_default_str()
      ->check(count);
  app->add_option("--sequence-length", bench.sequence_length, "tokens of a row")
      ->type_name("N")
      ->capture_default_str()
      ->check(count);
  app->add_option("--documents-per-row", bench.documents_per_row, "documents packed into a row")
      ->type_name("N")
      ->capture_default_str()
      ->check(count);
  app->add_option("--accumulate", bench.accumulate, "micro-batches of a step")
      ->type_name("N")
      ->capture_default_str()
      ->check(count);
  app->add_option("--mode", arguments->mode, "what is timed: forward, forward-backward or step")
      ->type_name("NAME")
      ->capture_default_str()
      ->check(CLI::IsMember({"forward", "forward-backward", "step"}));
  app->add_flag("--balanced", bench.balanced, "Give every expert the same number of tokens");
  app->add_option("--clip", bench.max_grad_norm, "compute the gradient's norm and clip to this; 0: neither")
      ->type_name("NUMBER")
      ->capture_default_str();
  app->add_option("--steps", bench.steps, "steps to take the median of")->type_name("N")->capture_default_str();
  app->add_option("--settle", bench.settle, "seconds of steps before those")
      ->type_name("SECONDS")
      ->capture_default_str();
  app->add_option("--json", arguments->json, "write the figures to this new file too")->type_name("FILE");
  const KeyFlags flags(*app, {"device", "deterministic", "precision", "master_weights", "gradient_dtype",
                              "optimizer_state_dtype", "recompute", "experts_implementation"});
  return {app, [arguments, flags] {
            run_bench(*arguments, flags.overrides());
          }};
}

}  // namespace mixtune
