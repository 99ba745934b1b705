#include "data/preprocess.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/run_folder.h"
#include "cli/arguments.h"
#include "cli/preflight.h"
#include "data/load_documents.h"
#include "train/model_tokenizer.h"

namespace mixtune {

namespace {

struct PreprocessArguments {
  std::string config_file, output;
  bool overwrite = false;
  int64_t debug = 0;
};

std::unique_ptr<Tokenizer> tokenizer_of(const Config& config) {
  if (!needs_tokenizer(config.data.train_file, config.data.dataset_format) &&
      config.model.tokenizer_name_or_path.empty())
    return nullptr;
  if (config.model.tokenizer_name_or_path.empty() && config.model.model_name_or_path.empty())
    require_keys(config, {"tokenizer_name_or_path"});
  const std::string& model = config.model.model_name_or_path;
  const std::string& named = config.model.tokenizer_name_or_path;
  if (model.empty()) return open_tokenizer(model_folder(named));
  const std::string folder = model_folder(model);
  return open_model_tokenizer(named.empty() ? folder : model_folder(named), load_mixtral_config(folder));
}

// Keys that preprocess accepts, because one config serves train too, but that say nothing about single documents.
void warn_of_ineffective(const Config& config) {
  std::vector<std::string> given;
  for (const char* key : {"validation_file", "validation_split_percentage", "packing", "shuffle", "seed"})
    if (config.origins.contains(key)) given.push_back(config.where(key));
  if (!given.empty())
    log_warning("{}: no effect on what preprocess writes; set in the run that trains on it", fmt::join(given, ", "));
}

// An output that is read as well is a slip, whatever --overwrite says.
void check_not_read(const std::string& output, const Config& config) {
  std::vector<std::string> inputs = config.data.train_file;
  inputs.push_back(config.file);
  std::error_code missing;
  for (const std::string& input : inputs)
    if (!input.empty() && std::filesystem::equivalent(input, output, missing))
      throw UserError("--output", fmt::format("'{}' is what this reads", printable(output, 200)), "name another file");
}

void run_preprocess(const PreprocessArguments& arguments, const Overrides& overrides) {
  const Config config =
      load_config(arguments.config_file.empty() ? std::nullopt : std::optional(arguments.config_file), overrides);
  require_keys(config, {"train_file"});
  if (arguments.output.empty() && arguments.debug == 0)
    throw UserError("command line", "there is nothing to do", "give --output FILE, --debug N or both");
  check_data_files(config);
  if (!arguments.output.empty()) {
    check_output_file(arguments.output, arguments.overwrite);
    check_not_read(arguments.output, config);
  }
  warn_of_ineffective(config);

  const std::unique_ptr<Tokenizer> tokenizer = tokenizer_of(config);
  const Documents documents =
      load_documents(config.data.train_file, config.data,
                     {.tokenizer = tokenizer.get(), .train_on_prompt = config.data.train_on_prompt},
                     tokenizer ? tokenizer->vocab_size() : std::numeric_limits<int32_t>::max());
  print_samples(documents, tokenizer.get(), arguments.debug, stdout);
  if (!arguments.output.empty()) write_tokenized(documents, arguments.output, arguments.overwrite);
}

}  // namespace

Command add_preprocess(CLI::App& program) {
  CLI::App* app = program.add_subcommand("preprocess", "Turn text into token ids and labels, as train would");
  const auto arguments = std::make_shared<PreprocessArguments>();
  app->add_option("CONFIG", arguments->config_file, "YAML file of keys; flags override it")->type_name("");
  app->add_option("--output", arguments->output, "JSONL file to write, of format `tokenized`")->type_name("FILE");
  app->add_flag("--overwrite", arguments->overwrite, "Replace the output file");
  app->add_option("--debug", arguments->debug, "Print the first N documents: token, label, position")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  const KeyFlags flags(*app, {"Data", "model_name_or_path", "tokenizer_name_or_path", "seed"});
  add_examples(*app, {"mixtune preprocess examples/quickstart/train.yaml --debug 2",
                      "mixtune preprocess --train_file examples/quickstart/validation.jsonl --tokenizer_name_or_path "
                      "examples/quickstart --output tokens.jsonl"});
  return {app, [arguments, flags] {
            run_preprocess(*arguments, flags.overrides());
          }};
}

}  // namespace mixtune
