#include <fmt/format.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "base/output_file.h"
#include "base/progress_line.h"
#include "base/staged.h"
#include "checkpoint/run_folder.h"
#include "checkpoint/save.h"
#include "checkpoint/write_computed_model.h"
#include "cli/arguments.h"
#include "cli/new_folder.h"
#include "model/mixtral_config.h"
#include "model/params.h"
#include "train/model_tokenizer.h"

namespace mixtune {

namespace {

constexpr size_t kMaxConfigBytes = 1 << 20;

struct InitArguments {
  std::string config_file, out, tokenizer;
  std::string dtype = "fp32";
  int64_t seed = 42;
};

std::string tokenizer_folder(const std::string& path, const MixtralConfig& model) {
  return parent_folder(open_model_tokenizer(model_folder(path), model)->path());
}

void write_random_model(const MixtralConfig& config, uint64_t seed, const State& layout, const SaveOptions& options) {
  Stack stack("not used", Device{}, 1);
  Ctx ctx{{}, stack, stack};
  ByteProgress progress(printable_path(options.out_folder));
  const auto values = [&](const TensorEntry& tensor, int64_t first, const Tensor& to) {
    fill_random(config, {.seed = seed}, tensor.name, tensor.shape, first, to);
  };
  write_computed_model(ctx, layout, options, values, std::ref(progress));
}

void run_init(const InitArguments& arguments) {
  const std::string out = without_trailing_slash(arguments.out);
  const std::string text = read_small_file(arguments.config_file, kMaxConfigBytes, "give a config.json");
  const MixtralConfig config = parse_mixtral_config(text, printable(arguments.config_file, 200));
  check_new_folder(out);
  std::vector<SideFile> side_files;
  if (!arguments.tokenizer.empty())
    side_files = read_side_files(tokenizer_folder(arguments.tokenizer, config), SideFiles::kTokenizer);
  const State layout = meta_state(config);
  make_parent_folder(out);
  write_random_model(config, static_cast<uint64_t>(arguments.seed), layout,
                     {.out_folder = out,
                      .config_json = text,
                      .side_files = side_files,
                      .dtype = arguments.dtype == "bf16" ? DType::kBF16 : DType::kF32});
  fmt::print("{}: {} parameters, {}\n", printable_path(out), layout.layout().elements(), arguments.dtype);
}

}  // namespace

Command add_init(CLI::App& program) {
  CLI::App* app = program.add_subcommand("init", "Write a checkpoint with random weights");
  const auto arguments = std::make_shared<InitArguments>();
  app->add_option("MODEL", arguments->config_file, "a config.json: the shape of the model")
      ->type_name("FILE")
      ->required();
  app->add_option("OUT", arguments->out, "folder to make")->type_name("FOLDER")->required();
  app->add_option("--tokenizer", arguments->tokenizer, "folder whose tokenizer files are copied in")
      ->type_name("FOLDER");
  app->add_option("--dtype", arguments->dtype, "element type of the weights")
      ->type_name("fp32|bf16")
      ->capture_default_str()
      ->check(CLI::IsMember({"fp32", "bf16"}));
  app->add_option("--seed", arguments->seed, "seed of the weights")
      ->capture_default_str()
      ->type_name("INTEGER")
      ->check(CLI::Range(int64_t{0}, int64_t{0xFFFFFFFF}));
  add_examples(*app, {"mixtune init examples/quickstart/model.json out/fresh --tokenizer examples/quickstart",
                      "mixtune init examples/quickstart/model.json out/other --dtype bf16 --seed 1"});
  return {app, [arguments] {
            run_init(*arguments);
          }};
}

}  // namespace mixtune
