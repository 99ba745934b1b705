#include <fmt/format.h>

#include <functional>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/progress_line.h"
#include "base/staged.h"
#include "checkpoint/adapter_folder.h"
#include "checkpoint/adapter_writer.h"
#include "checkpoint/export_model.h"
#include "cli/arguments.h"
#include "cli/export_source.h"
#include "cli/new_folder.h"
#include "cli/preflight.h"
#include "model/params.h"

namespace mixtune {

namespace {

struct ExportArguments {
  std::string checkpoint, out, base, adapter_format;
};

ExportReport exported(const State& layout, const SaveOptions& options) {
  ByteProgress progress(printable_path(options.out_folder));
  return export_model(layout, options, std::ref(progress));
}

// The adapter's pairs as they are to be written. Throws UserError where no one rank and scaling says what they do.
NewAdapter new_adapter(const AdapterFolder& adapter, const ExportArguments& arguments, std::optional<DType> dtype) {
  if (!adapter.whole().empty())
    throw UserError(printable_path(adapter.path()),
                    fmt::format("has {} whole (modules_to_save), which no server takes beside pairs",
                                adapter.whole().front().module),
                    "merge it: mixtune merge BASE ADAPTER OUT");
  const AdapterPair& first = adapter.pairs().front();
  NewAdapter made = {.base = adapter.config().base,
                     .r = first.rank,
                     .alpha = first.scaling * static_cast<double>(first.rank),
                     .modules = {},
                     .dtype = dtype.value_or(DType::kF32),
                     .naming = arguments.adapter_format == "sglang" ? AdapterNaming::kSglang : AdapterNaming::kHub};
  for (const AdapterPair& pair : adapter.pairs()) {
    if (pair.rank != first.rank || pair.scaling != first.scaling)
      throw UserError(
          printable_path(adapter.path()),
          fmt::format("{} and {} have not the same rank and scaling, of which programs make different things",
                      first.module, pair.module),
          "merge it: mixtune merge BASE ADAPTER OUT");
    made.modules.push_back({pair.module, pair.in, pair.out});
  }
  return made;
}

void export_adapter(const FoundModel& found, const ExportArguments& arguments, const ExportFlags& flags) {
  check_outside(arguments.out, found.adapter);
  AdapterFolder adapter(found.adapter, base_shapes(meta_state(load_mixtral_config(found.folder))));
  const NewAdapter made = new_adapter(adapter, arguments, flags.dtype());
  const std::string out = without_trailing_slash(arguments.out);
  make_parent_folder(out);
  write_adapter_folder(out, made, [&](size_t i) { return adapter.read(adapter.pairs()[i]); });
  fmt::print("{}: an adapter of {} pairs, rank {}, alpha {}\n", printable_path(out), made.modules.size(), made.r,
             made.alpha);
}

void run_export(const ExportArguments& arguments, const ExportFlags& flags) {
  const std::string out = without_trailing_slash(arguments.out);
  check_new_folder(out);
  if (!arguments.adapter_format.empty()) {
    const FoundModel found = find_model_or_adapter(arguments.checkpoint, arguments.base);
    if (found.adapter.empty())
      throw UserError("--adapter_format", fmt::format("'{}' is no adapter", printable(arguments.checkpoint, 200)),
                      "leave it out");
    return export_adapter(found, arguments, flags);
  }
  if (!arguments.base.empty()) throw UserError("--base", "has no effect without --adapter_format", "leave it out");
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
  app->add_option("--adapter_format", arguments->adapter_format,
                  "write an adapter anew: hub, by the names that PEFT, vLLM and llama.cpp know, or sglang, by SGLang's")
      ->type_name("hub|sglang")
      ->check(CLI::IsMember({"hub", "sglang"}));
  app->add_option("--base", arguments->base, "the adapter's base, where it is not where the adapter says")
      ->type_name("FOLDER");
  const ExportFlags flags(*app);
  add_examples(*app, {"mixtune export examples/quickstart/pretrained out/exported",
                      "mixtune export examples/quickstart/pretrained out/halves --dtype fp16 --max_shard_size 1GB",
                      "mixtune export tests/fixtures/peft/packed out/sglang --adapter_format sglang --base "
                      "tests/fixtures/hf/plain"});
  return {app, [arguments, flags] {
            run_export(*arguments, flags);
          }};
}

}  // namespace mixtune
