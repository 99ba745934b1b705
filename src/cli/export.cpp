#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/progress_line.h"
#include "base/size.h"
#include "base/staged.h"
#include "checkpoint/edit_config.h"
#include "checkpoint/export_model.h"
#include "checkpoint/load.h"
#include "checkpoint/model_folder.h"
#include "checkpoint/run_folder.h"
#include "cli/arguments.h"
#include "cli/new_folder.h"
#include "model/mixtral_config.h"
#include "model/params.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

struct ExportArguments {
  std::string checkpoint, out, dtype;
};

std::optional<DType> dtype_named(const std::string& name) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16})
    if (dtype_name(dtype) == name) return dtype;
  return {};
}

void check_outside(const std::string& out, const std::string& checkpoint) {
  std::error_code error;
  const fs::path from = fs::canonical(checkpoint, error), to = fs::weakly_canonical(out, error);
  if (!error && std::ranges::mismatch(from, to).in1 == from.end())
    throw UserError(printable(out, 200), "lies in the checkpoint that is exported", "name a folder elsewhere");
}

// What a model's folder may lack, and llama.cpp's converter asks for.
void warn_without_tokenizer(const SaveOptions& options, const std::string& folder) {
  const auto is_tokenizer = [](const SideFile& file) {
    return file.name == "tokenizer.model" || file.name == "tokenizer.json";
  };
  if (std::ranges::none_of(options.side_files, is_tokenizer))
    log_warning("{}: has no tokenizer.model or tokenizer.json: other programs will ask for one",
                printable_path(folder));
}

ExportReport exported(const State& layout, const SaveOptions& options) {
  ByteProgress progress(printable_path(options.out_folder));
  return export_model(layout, options, std::ref(progress));
}

void run_export(const ExportArguments& arguments, const Overrides& overrides) {
  const Config config = load_config(std::nullopt, overrides);  // of the keys that are flags here
  const std::string out = without_trailing_slash(arguments.out);
  check_new_folder(out);
  const std::string folder = without_trailing_slash(model_folder(arguments.checkpoint));
  const ModelFolder model(folder);
  check_outside(out, folder);
  const MixtralConfig shape = parse_mixtral_config(model.config_json(), printable_path(folder + "/config.json"));
  const State layout(make_layout(shape).specs, {DeviceType::kMeta}, DType::kF32, State::Purpose::kInference);
  check_weights(model.weights(), layout);
  SaveOptions options = model.save_options(out);
  options.config_json = with_architectures(std::move(options.config_json));
  options.dtype = dtype_named(arguments.dtype);
  options.max_shard_size = parse_size(config.output.max_shard_size);
  warn_without_tokenizer(options, folder);
  if (!is_of_transformers(shape.router_scores, shape.num_experts_per_tok, shape.num_local_experts))
    log_warning("{}: router scores: {}; {}", printable_path(folder), describe(shape.router_scores),
                kUnknownToTransformers);
  make_parent_folder(out);
  const ExportReport report = exported(layout, options);
  if (report.from_state > 0)
    log_info("{}: {} tensors are from its state/, which has them finer", printable_path(folder), report.from_state);
  fmt::print("{}: {} tensors, {} in {} {}\n", printable_path(out), report.tensors, format_bytes(report.bytes),
             report.files, report.files == 1 ? "file" : "files");
}

}  // namespace

Command add_export(CLI::App& program) {
  CLI::App* app = program.add_subcommand("export", "Write a checkpoint anew as a plain Hugging Face folder");
  const auto arguments = std::make_shared<ExportArguments>();
  app->add_option("CHECKPOINT", arguments->checkpoint,
                  "a checkpoint, a run's folder (its best or latest one) or a model's")
      ->type_name("FOLDER")
      ->required();
  app->add_option("OUT", arguments->out, "folder to make")->type_name("FOLDER")->required();
  app->add_option("--dtype", arguments->dtype, "element type of the weights; without it, each has its own")
      ->type_name("fp32|bf16|fp16")
      ->check(CLI::IsMember({"fp32", "bf16", "fp16"}));
  const KeyFlags flags(*app, {"max_shard_size"});
  add_examples(*app, {"mixtune export examples/quickstart/pretrained out/exported",
                      "mixtune export examples/quickstart/pretrained out/halves --dtype fp16 --max_shard_size 1GB"});
  return {app, [arguments, flags] {
            run_export(*arguments, flags.overrides());
          }};
}

}  // namespace mixtune
