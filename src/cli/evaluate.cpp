#include "train/evaluate.h"

#include <fmt/format.h>

#include <cmath>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>

#include "base/json_value.h"
#include "cli/arguments.h"
#include "cli/preflight.h"
#include "cli/ranks.h"
#include "cli/say.h"
#include "model/mixtral_config.h"
#include "train/instance_options.h"

namespace mixtune {

namespace {

struct EvaluateArguments {
  std::string model, base, file;
  bool json = false;
  int ranks = 0;
};

std::string describe(const EvalRecord& result, bool as_json) {
  if (!as_json)
    return fmt::format("loss        {:.6f}\nperplexity  {:.4f}\ntokens      {}\n", result.eval_loss,
                       result.eval_perplexity, result.eval_tokens);
  const nlohmann::ordered_json object = {
      {"loss", result.eval_loss}, {"perplexity", result.eval_perplexity}, {"tokens", result.eval_tokens}};
  return object.dump() + "\n";
}

void set_model(const FoundModel& found, Config& config) {
  config.model.model_name_or_path = found.folder;
  config.adapter.adapter_name_or_path = found.adapter;
  if (config.model.tokenizer_name_or_path.empty() && !found.adapter.empty())
    config.model.tokenizer_name_or_path = found.tokenizer;
}

void print_evaluation(const EvalRecord& result, const EvaluateArguments& arguments) {
  say(describe(result, arguments.json));
  if (!std::isfinite(result.eval_loss))
    throw Error(printable(arguments.file, 200), fmt::format("the evaluation went bad: loss {}", result.eval_loss),
                "look at this data, and at how the model was trained", ExitCode::kWentBad);
}

void run_evaluate(const EvaluateArguments& arguments, const Overrides& overrides) {
  const auto launch = launch_of_process(arguments.ranks);
  std::optional<Silence> silence(!leads(launch));
  Config config = load_config(std::nullopt, overrides);
  config.data.validation_file.path = {arguments.file};
  config.origins["model_name_or_path"] = "MODEL";
  config.origins["validation_file"] = "--file";
  set_model(find_model_or_adapter(arguments.model, arguments.base, leads(launch)), config);
  const MixtralConfig model = load_mixtral_config(config.model.model_name_or_path);
  choose_precision(config, model, device_of(config, single_rank()).type);
  instance_options(config, State::Purpose::kInference);  // the keys fit the machine
  check_data_files(config);
  silence.reset();
  run_on_ranks({.config = config,
                .launch = launch,
                .nproc = arguments.ranks,
                .experts = [&] { return model.num_local_experts; },
                .entries =
                    [&] {
                      return entries_of_model(config.model.model_name_or_path, config.adapter.adapter_name_or_path);
                    }},
               [&](const Ranks& ranks) {
                 const EvalRecord result = evaluate(config, model, ranks);
                 if (ranks.grid.rank == 0) print_evaluation(result, arguments);
               });
}

}  // namespace

Command add_evaluate(CLI::App& program) {
  CLI::App* app = program.add_subcommand("evaluate", "Print a model's loss and perplexity on a data file");
  const auto arguments = std::make_shared<EvaluateArguments>();
  app->add_option("MODEL", arguments->model, "folder of a checkpoint, or of an adapter")
      ->type_name("FOLDER")
      ->required();
  app->add_option("--base", arguments->base, "folder of an adapter's base; default: the one that it names")
      ->type_name("FOLDER");
  app->add_option("--file", arguments->file, "file of JSON records to evaluate on, or a pattern")
      ->type_name("FILE")
      ->required();
  app->add_flag("--json", arguments->json, "Print one JSON object");
  add_nproc(*app, arguments->ranks);
  const KeyFlags flags(*app, {"tokenizer_name_or_path",
                              "dataset_format",
                              "train_on_prompt",
                              "chat_template",
                              "parse_special_tokens",
                              "long_documents",
                              "packing",
                              "max_seq_length",
                              "data_cache",
                              "reset_attention_mask",
                              "reset_position_ids",
                              "eod_mask_loss",
                              "per_device_train_batch_size",
                              "device",
                              "precision",
                              "fp8_scaling",
                              "fp8_power_of_two_scales",
                              "base_precision",
                              "expert_model_parallel_size",
                              "collective_timeout"});
  describe_chosen_precision(*app);
  add_examples(*app, {"mixtune evaluate examples/quickstart/pretrained --file examples/quickstart/validation.jsonl "
                      "--max_seq_length 256",
                      "mixtune evaluate examples/quickstart/pretrained --file examples/quickstart/validation.jsonl "
                      "--max_seq_length 256 --packing --json",
                      "mixtune evaluate examples/quickstart/pretrained --file examples/quickstart/validation.jsonl "
                      "--max_seq_length 256 --nproc 2 --expert_model_parallel_size 2 --device cpu"});
  return {app, [arguments, flags] {
            run_evaluate(*arguments, flags.overrides());
          }};
}

}  // namespace mixtune
