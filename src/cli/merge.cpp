#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/progress_line.h"
#include "base/staged.h"
#include "checkpoint/merge_adapters.h"
#include "checkpoint/run_folder.h"
#include "cli/arguments.h"
#include "cli/export_source.h"
#include "cli/new_folder.h"
#include "model/lora.h"
#include "model/params.h"

namespace mixtune {

namespace {

struct MergeArguments {
  std::string base;
  std::vector<std::string> others;  // adapters, then OUT
};

// An adapter as it is given: PATH or PATH:WEIGHT. What is a path as a whole is no weight.
struct GivenAdapter {
  std::string path;
  double weight = 1;
};

GivenAdapter given_adapter(const std::string& text) {
  std::error_code error;
  const size_t colon = text.rfind(':');
  if (colon == text.npos || std::filesystem::exists(text, error)) return {text};
  const char *const begin = text.data() + colon + 1, *const end = text.data() + text.size();
  double weight = 0;
  const auto [rest, failure] = std::from_chars(begin, end, weight);
  if (failure != std::errc() || rest != end || !std::isfinite(weight))
    throw UserError(printable(text, 200), fmt::format("its weight is no number: '{}'", printable({begin, end})),
                    "write PATH or PATH:WEIGHT, as adapter:0.5");
  return {text.substr(0, colon), weight};
}

std::vector<WeightedAdapter> opened_adapters(const std::vector<GivenAdapter>& given, const std::string& out,
                                             const BaseShapes& base) {
  std::vector<WeightedAdapter> adapters;
  for (const auto& [path, weight] : given) {
    const std::string folder = without_trailing_slash(model_folder(path));
    check_outside(out, folder);
    AdapterFolder adapter(folder, base);
    log_info("{}: rank {}, alpha {}{}, {} pairs{}{}{}", printable_path(folder), adapter.config().r,
             adapter.config().alpha, adapter.config().use_rslora ? ", rslora" : "", adapter.pairs().size(),
             adapter.whole().empty() ? "" : fmt::format(", {} whole weights", adapter.whole().size()),
             adapter.config().base.empty() ? "" : fmt::format(", trained on {}", printable(adapter.config().base, 200)),
             weight == 1 ? "" : fmt::format("; taken {} times", weight));
    adapters.push_back({std::move(adapter), weight});
  }
  return adapters;
}

MergeReport merged(const ExportSource& source, std::vector<WeightedAdapter>& adapters, BasePrecision base) {
  ByteProgress progress(printable_path(source.options.out_folder));
  const State held(make_layout(source.shape, {0, source.shape.num_local_experts}, {}, Lora{.base = base}).specs,
                   {DeviceType::kMeta}, DType::kF32, State::Purpose::kInference);
  HeldBase values(source.model.weights(), held);
  return merge_adapters(source.layout, source.options, adapters, std::ref(progress),
                        base == BasePrecision::kAuto ? nullptr : &values);
}

// "32 q_proj, 256 w1"
std::string counts_of(const std::map<std::string, size_t>& tensors) {
  std::string text;
  for (const auto& [name, count] : tensors) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, name);
  return text;
}

void print_report(const std::string& out, const MergeReport& report) {
  size_t tensors = 0;
  for (const auto& [name, count] : report.merged) tensors += count;
  const auto share = 100 * static_cast<double>(report.changed) / static_cast<double>(report.elements);
  fmt::print(
      "{}: merged into {} of {} tensors ({}): {:.1f}% of their elements changed, |merged - exact| / |delta| = {}; "
      "{} in {} {}\n",
      printable_path(out), tensors, report.tensors, counts_of(report.merged), share,
      report.delta > 0 ? fmt::format("{:.2e}", report.error / report.delta) : "none, as nothing is added",
      format_bytes(report.bytes), report.files, report.files == 1 ? "file" : "files");
}

void run_merge(const MergeArguments& arguments, const ExportFlags& flags, BasePrecision base) {
  if (arguments.others.size() < 2) throw UserError("OUT", "is missing", "write mixtune merge BASE ADAPTER OUT");
  const std::string out = without_trailing_slash(arguments.others.back());
  check_new_folder(out);
  std::vector<GivenAdapter> given;
  for (size_t i = 0; i + 1 < arguments.others.size(); ++i) given.push_back(given_adapter(arguments.others[i]));
  const ExportSource source(arguments.base, out, flags);
  std::vector<WeightedAdapter> adapters = opened_adapters(given, out, base_shapes(source.layout));
  make_parent_folder(out);
  print_report(out, merged(source, adapters, base));
}

}  // namespace

Command add_merge(CLI::App& program) {
  CLI::App* app = program.add_subcommand("merge", "Write a model anew with LoRA adapters merged into it");
  const auto arguments = std::make_shared<MergeArguments>();
  app->add_option("BASE", arguments->base, "the model that the adapters were trained on, or a run's folder")
      ->type_name("FOLDER")
      ->required();
  app->add_option("ADAPTER... OUT", arguments->others,
                  "adapters, PATH or PATH:WEIGHT (WEIGHT times what it adds); and the folder to make")
      ->type_name("FOLDER")
      ->required();
  const ExportFlags flags(*app);
  const KeyFlags keys(*app, {"base_precision"});
  add_examples(
      *app,
      {"mixtune merge tests/fixtures/hf/plain tests/fixtures/peft/hub out/merged",
       "mixtune merge tests/fixtures/hf/plain tests/fixtures/peft/hub:0.5 tests/fixtures/peft/packed:0.5 out/both "
       "--dtype bf16"});
  return {app, [arguments, flags, keys] {
            run_merge(*arguments, flags, load_config(std::nullopt, keys.overrides()).adapter.base());
          }};
}

}  // namespace mixtune
