#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/output_file.h"
#include "base/progress_line.h"
#include "base/staged.h"
#include "checkpoint/adapter_config.h"
#include "checkpoint/foreign_folder.h"
#include "checkpoint/run_folder.h"
#include "cli/arguments.h"
#include "cli/describe_adapter.h"
#include "cli/describe_data.h"
#include "cli/describe_model.h"
#include "config/keys.h"
#include "config/load.h"
#include "data/data_survey.h"
#include "data/indexed_files.h"
#include "data/text_source.h"
#include "run/verify.h"

namespace mixtune {

namespace fs = std::filesystem;

namespace {

struct InspectArguments {
  std::string path, tokenizer, format = "auto", good;
  int64_t samples = 2;
  bool verify = false;
};

bool has_file(const fs::path& folder, const char* name) {
  std::error_code error;
  return fs::is_regular_file(folder / name, error);
}

std::string describe_folder(const std::string& path) {
  const std::string folder = model_folder(path);
  if (has_file(folder, "config.json")) return describe_checkpoint(folder);
  if (has_file(folder, kAdapterConfigFile)) return describe_adapter(folder);
  if (const auto foreign = foreign_folder(folder))
    throw UserError(printable(folder, 200), foreign->what, foreign->mend);
  if (has_file(folder, "tokenizer.model") || has_file(folder, "tokenizer.json")) return describe_tokenizer(folder);
  throw UserError(printable(folder, 200), "holds no config.json, tokenizer.model or finished run",
                  "name a model folder, a tokenizer folder or an output folder");
}

void print(const std::string& text) {
  fmt::print("{}", text);
}

bool shows_colour() {
  const char* none = std::getenv("NO_COLOR");
  return isatty(STDOUT_FILENO) == 1 && (none == nullptr || *none == '\0');
}

// Ends in a UserError where records are faulty, unless the others were asked for.
void print_survey(const InspectArguments& arguments, Config config) {
  const Key* key = find_key("dataset_format");
  key->set(config, parse_value(*key, arguments.format, "--format"));
  TextSource source;
  if (!arguments.tokenizer.empty()) {
    const Dataset dataset{.path = {arguments.path}};
    const std::string folder = model_folder(arguments.tokenizer);
    source = open_text_source(open_tokenizer(folder), folder, {&dataset, 1}, config);
  }
  if (!arguments.good.empty()) check_output_file(arguments.good, false);
  const SurveyOptions options = {.format = config.data.dataset_format,
                                 .settings = config.data,
                                 .samples = arguments.samples,
                                 .colour = shows_colour(),
                                 .good_path = arguments.good};
  const DataSurvey survey = survey_data_file(arguments.path, options, source.encoder(config.data));
  print(survey.text);
  std::fflush(stdout);
  if (survey.faulty > 0 && arguments.good.empty())
    throw UserError(printable(arguments.path, 200),
                    fmt::format("{} of {} records are faulty", survey.faulty, survey.records),
                    "mend them, or write the others with --write-good FILE");
}

// What says how records are read, beside something that has none.
void refuse_data_flags(const InspectArguments& arguments, const Overrides& overrides) {
  const std::string given = !arguments.good.empty() ? "write-good" : !overrides.empty() ? overrides[0].first : "";
  if (!given.empty())
    throw UserError("--" + given, fmt::format("has no effect on '{}'", printable(arguments.path, 200)),
                    "remove it, or name a file of records");
}

Verification verified(const std::string& folder) {
  ByteProgress progress(printable_path(folder));
  return verify_checkpoint(folder, std::ref(progress));
}

// Ends in a UserError, a line for each fault.
void verify(const std::string& path) {
  const std::string folder = without_trailing_slash(model_folder(path));
  const Verification found = verified(folder);
  if (found.faults.empty())
    return print(fmt::format("{} files, {}: all as written\n", found.files, format_bytes(found.bytes)));
  std::string lines;
  for (const UserError& fault : found.faults) lines += fmt::format("{}{}", lines.empty() ? "" : "\n", fault.what());
  throw UserError("", lines, "");
}

void inspect(const InspectArguments& arguments, const Overrides& overrides) {
  if (arguments.path.empty()) throw UserError("PATH", "is empty", "name a folder or a file");
  const auto prefix = find_indexed(arguments.path);
  const fs::path path = arguments.path;
  std::error_code error;
  if (!prefix && !fs::exists(path, error))
    throw UserError(printable(arguments.path, 200), "does not exist", "name a folder or a file");
  const bool folder = fs::is_directory(path, error), tensors = path.extension() == ".safetensors",
             tokenizer = path.extension() == ".model" || path.filename() == "tokenizer.json";
  if (arguments.verify && !folder)
    throw UserError("--verify", fmt::format("'{}' is no folder", printable(arguments.path, 200)),
                    "name a checkpoint or a run's folder");
  if (!prefix && !folder && !tensors && !tokenizer)
    return print_survey(arguments, load_config(std::nullopt, overrides));
  refuse_data_flags(arguments, overrides);
  if (arguments.verify) return verify(arguments.path);
  print(prefix    ? describe_indexed(*prefix)
        : folder  ? describe_folder(arguments.path)
        : tensors ? describe_safetensors(path)
                  : describe_tokenizer(path));
}

}  // namespace

Command add_inspect(CLI::App& program) {
  CLI::App* app = program.add_subcommand("inspect", "Say what a checkpoint, adapter, tokenizer or data file holds");
  const auto arguments = std::make_shared<InspectArguments>();
  app->add_option(
         "PATH", arguments->path,
         "a model, adapter, tokenizer or output folder; a .safetensors, tokenizer.json, tokenizer .model or JSONL file")
      ->type_name("")
      ->required();
  app->add_option("--tokenizer", arguments->tokenizer, "folder of the tokenizer to count a data file's tokens with")
      ->type_name("FOLDER");
  app->add_option("--format", arguments->format, "form of a data file's records, as dataset_format")
      ->type_name("TEXT")
      ->capture_default_str();
  app->add_option("--samples", arguments->samples, "show the first N documents of a data file, what is trained marked")
      ->type_name("N")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app->add_option("--write-good", arguments->good, "write the records without a fault to this new JSONL file")
      ->type_name("FILE");
  app->add_flag("--verify", arguments->verify,
                "Read every byte of a checkpoint, and name what is not as it was written");
  const KeyFlags flags(
      *app, {"train_on_prompt", "chat_template", "parse_special_tokens", "long_documents", "max_seq_length"});
  add_examples(*app, {"mixtune inspect examples/quickstart/pretrained",
                      "mixtune inspect examples/quickstart/validation.jsonl --tokenizer examples/quickstart"});
  return {app, [arguments, flags] {
            inspect(*arguments, flags.overrides());
          }};
}

}  // namespace mixtune
