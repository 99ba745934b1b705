#include "data/preprocess.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
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
#include "base/output_file.h"
#include "checkpoint/run_folder.h"
#include "cli/arguments.h"
#include "cli/preflight.h"
#include "data/data_cache.h"
#include "data/data_files.h"
#include "data/indexed_files.h"
#include "data/load_documents.h"
#include "data/load_report.h"
#include "data/text_source.h"
#include "train/model_tokenizer.h"

namespace mixtune {

namespace {

struct PreprocessArguments {
  std::string config_file, output, output_format = "jsonl";
  bool overwrite = false;
  int64_t debug = 0;
};

TextSource text_source_of(const Config& config, std::span<const Dataset> datasets) {
  if (!needs_tokenizer(datasets, config.data.dataset_format) && config.model.tokenizer_name_or_path.empty()) return {};
  if (config.model.tokenizer_name_or_path.empty() && config.model.model_name_or_path.empty())
    require_keys(config, {"tokenizer_name_or_path"});
  const std::string& model = config.model.model_name_or_path;
  const std::string folder = tokenizer_path(config.model);
  if (model.empty()) return open_text_source(open_tokenizer(folder), folder, datasets, config);
  const bool is_models = config.model.tokenizer_name_or_path.empty();
  const MixtralConfig shape =
      resize_vocabulary(config.model, load_mixtral_config(is_models ? folder : model_folder(model)));
  return open_text_source(open_model_tokenizer(folder, shape), folder, datasets, config);
}

// Keys that preprocess accepts, because one config serves train too, but that say nothing about single documents.
void warn_of_ineffective(const Config& config) {
  std::vector<std::string> given;
  for (const char* key :
       {"validation_file", "validation_split_percentage", "split", "packing", "shuffle", "seed", "data_cache"})
    if (config.origins.contains(key)) given.push_back(config.where(key));
  if (!given.empty())
    log_warning("{}: no effect on what preprocess writes; set in the run that trains on it", fmt::join(given, ", "));
  if (std::ranges::any_of(config.data.datasets, [](const Dataset& dataset) { return dataset.weight > 0; }))
    log_warning("{}: weights have no effect on what preprocess writes; write each data set to a file of its own",
                config.where("datasets"));
  if (std::ranges::any_of(config.data.datasets, [](const Dataset& dataset) { return !dataset.split.empty(); }))
    log_warning("{}: a split has no effect on what preprocess writes, which is every record", config.where("datasets"));
}

// The files that --output names, all that there may be.
std::vector<std::string> output_files(const PreprocessArguments& arguments) {
  if (arguments.output_format == "jsonl") return {arguments.output};
  const auto files = IndexedPaths(indexed_prefix(arguments.output)).all();
  return {files.begin(), files.end()};
}

std::vector<std::string> input_files(const Config& config, std::span<const Dataset> datasets) {
  std::vector<std::string> inputs = {config.file};
  for (const std::string& input : files_of(datasets)) {
    inputs.push_back(input);
    if (const auto prefix = find_indexed(input))
      for (const std::string& file : IndexedPaths(*prefix).all()) inputs.push_back(file);
  }
  return inputs;
}

// An output that is read as well is a slip, whatever --overwrite says.
void check_output(const PreprocessArguments& arguments, const Config& config, std::span<const Dataset> datasets) {
  const std::vector<std::string> inputs = input_files(config, datasets);
  for (const std::string& output : output_files(arguments)) {
    check_output_file(output, arguments.overwrite);
    std::error_code missing;
    for (const std::string& input : inputs)
      if (!input.empty() && std::filesystem::equivalent(input, output, missing))
        throw UserError("--output", fmt::format("'{}' is what this reads", printable(output, 200)),
                        "name another file");
  }
}

void write_output(const PreprocessArguments& arguments, const Documents& documents, int64_t vocab_size) {
  if (arguments.output_format == "jsonl") return write_tokenized(documents, arguments.output, arguments.overwrite);
  write_indexed(documents, indexed_prefix(arguments.output), vocab_size, arguments.overwrite);
}

void run_preprocess(const PreprocessArguments& arguments, const Overrides& overrides) {
  const Config config =
      load_config(arguments.config_file.empty() ? std::nullopt : std::optional(arguments.config_file), overrides);
  require_keys(config, {"train_file"});
  if (arguments.output.empty() && arguments.debug == 0)
    throw UserError("command line", "there is nothing to do", "give --output FILE, --debug N or both");
  if (config.data.dataset_format == DatasetFormat::kMegatron)
    throw UserError(config.where("dataset_format"), "is how train reads what preprocess writes",
                    "leave it out, and write --output_format indexed");
  check_data_files(config);
  const std::vector<Dataset> datasets = train_datasets(config);
  if (!arguments.output.empty()) check_output(arguments, config, datasets);
  warn_of_ineffective(config);

  const TextSource source = text_source_of(config, datasets);
  const Tokenizer* tokenizer = source.tokenizer.get();
  const int64_t vocab_size = tokenizer ? tokenizer->vocab_size() : std::numeric_limits<int32_t>::max();
  const std::shared_ptr<const Documents> documents =
      uncached_documents({.name = list_names(files_of(datasets)),
                          .load =
                              [&](DocumentSink& sink) {
                                load_documents(datasets, config.data, source.encoder(config.data), vocab_size, sink);
                              },
                          .vocab_size = vocab_size,
                          .max_seq_length = config.data.max_seq_length});
  print_samples(*documents, tokenizer, arguments.debug, stdout);
  if (!arguments.output.empty()) write_output(arguments, *documents, vocab_size);
}

}  // namespace

Command add_preprocess(CLI::App& program) {
  CLI::App* app = program.add_subcommand("preprocess", "Turn text into token ids and labels, as train would");
  const auto arguments = std::make_shared<PreprocessArguments>();
  app->add_option("CONFIG", arguments->config_file, "YAML file of keys; flags override it")->type_name("");
  app->add_option("--output", arguments->output, "File to write, or prefix of the files")->type_name("FILE");
  app->add_option("--output_format,--output-format", arguments->output_format,
                  "jsonl: a file of format `tokenized`; indexed: Megatron's FILE.bin and FILE.idx")
      ->type_name("TEXT")
      ->capture_default_str()
      ->check(CLI::IsMember({"jsonl", "indexed"}));
  app->add_flag("--overwrite", arguments->overwrite, "Replace the output file");
  app->add_option("--debug", arguments->debug, "Print the first N documents: token, label, position")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  const KeyFlags flags(*app, {"Data", "model_name_or_path", "tokenizer_name_or_path", "resize_vocabulary", "seed"});
  add_examples(*app, {"mixtune preprocess examples/quickstart/train.yaml --debug 2",
                      "mixtune preprocess --train_file examples/quickstart/validation.jsonl --tokenizer_name_or_path "
                      "examples/quickstart --output tokens.jsonl"});
  return {app, [arguments, flags] {
            run_preprocess(*arguments, flags.overrides());
          }};
}

}  // namespace mixtune
