#include "cli/export_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <utility>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/size.h"
#include "base/staged.h"
#include "checkpoint/edit_config.h"
#include "checkpoint/load.h"
#include "checkpoint/run_folder.h"
#include "config/router_scores.h"
#include "model/params.h"

namespace mixtune {

namespace fs = std::filesystem;

namespace {

// What a model's folder may lack, and llama.cpp's converter asks for.
void warn_without_tokenizer(const SaveOptions& options, const std::string& folder) {
  const auto is_tokenizer = [](const SideFile& file) {
    return file.name == "tokenizer.model" || file.name == "tokenizer.json";
  };
  if (std::ranges::none_of(options.side_files, is_tokenizer))
    log_warning("{}: has no tokenizer.model or tokenizer.json: other programs will ask for one",
                printable_path(folder));
}

void warn_of_router(const MixtralConfig& shape, const std::string& folder) {
  if (!is_of_transformers(shape.router_scores, shape.num_experts_per_tok, shape.num_local_experts))
    log_warning("{}: router scores: {}; {}", printable_path(folder), describe(shape.router_scores),
                kUnknownToTransformers);
}

}  // namespace

void check_outside(const std::string& out, const std::string& folder) {
  std::error_code missing, error;
  const fs::path from = fs::canonical(folder, missing), to = fs::weakly_canonical(out, error);
  if (!missing && !error && std::ranges::mismatch(from, to).in1 == from.end())
    throw UserError(printable(out, 200), "lies in the checkpoint that is read", "name a folder elsewhere");
}

ExportFlags::ExportFlags(CLI::App& app) : dtype_(std::make_shared<std::string>()), keys_(app, {"max_shard_size"}) {
  app.add_option("--dtype", *dtype_, "element type of the weights; without it, each has its own")
      ->type_name("fp32|bf16|fp16")
      ->check(CLI::IsMember({"fp32", "bf16", "fp16"}));
}

std::optional<DType> ExportFlags::dtype() const {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16})
    if (dtype_name(dtype) == *dtype_) return dtype;
  return {};
}

uint64_t ExportFlags::max_shard_size() const {
  return parse_size(load_config(std::nullopt, keys_.overrides()).output.max_shard_size);
}

ExportSource::ExportSource(const std::string& checkpoint, const std::string& out, const ExportFlags& flags)
    : folder(without_trailing_slash(model_folder(checkpoint))),
      model(folder),
      shape(parse_mixtral_config(model.config_json(), printable_path(folder + "/config.json"))),
      layout(meta_state(shape)),
      options(model.save_options(out)) {
  check_outside(out, folder);
  check_weights(model.weights(), layout);
  options.config_json = with_architectures(std::move(options.config_json));
  options.dtype = flags.dtype();
  options.max_shard_size = flags.max_shard_size();
  warn_without_tokenizer(options, folder);
  warn_of_router(shape, folder);
}

}  // namespace mixtune
