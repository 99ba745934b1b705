#include <fmt/format.h>

#include <functional>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/progress_line.h"
#include "base/staged.h"
#include "checkpoint/export_model.h"
#include "cli/arguments.h"
#include "cli/export_source.h"
#include "cli/new_folder.h"

namespace mixtune {

namespace {

struct ExportArguments {
  std::string checkpoint, out;
};

ExportReport exported(const State& layout, const SaveOptions& options) {
  ByteProgress progress(printable_path(options.out_folder));
  return export_model(layout, options, std::ref(progress));
}

void run_export(const ExportArguments& arguments, const ExportFlags& flags) {
  const std::string out = without_trailing_slash(arguments.out);
  check_new_folder(out);
  const ExportSource source(arguments.checkpoint, out, flags);
  make_parent_folder(out);
  const ExportReport report = exported(source.layout, source.options);
  if (report.from_state > 0)
    log_info("{}: {} tensors are from its state/, which has them finer", printable_path(source.folder),
             report.from_state);
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
  const ExportFlags flags(*app);
  add_examples(*app, {"mixtune export examples/quickstart/pretrained out/exported",
                      "mixtune export examples/quickstart/pretrained out/halves --dtype fp16 --max_shard_size 1GB"});
  return {app, [arguments, flags] {
            run_export(*arguments, flags);
          }};
}

}  // namespace mixtune
