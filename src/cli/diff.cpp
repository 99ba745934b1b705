#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/contained.h"
#include "base/error.h"
#include "base/json.h"
#include "base/json_value.h"
#include "base/progress_line.h"
#include "base/staged.h"
#include "checkpoint/compare_models.h"
#include "checkpoint/load.h"
#include "checkpoint/run_folder.h"
#include "cli/arguments.h"
#include "model/mixtral_config.h"
#include "model/params.h"

namespace mixtune {

namespace {

using nlohmann::json;

struct DiffArguments {
  std::string a, b, sort = "relative";
  bool json = false;
};

// A model that is compared: its folder's headers, configuration and tensors.
struct DiffSide {
  explicit DiffSide(const std::string& path)
      : name(without_trailing_slash(model_folder(path))),
        folder(name),
        config(parse_json_object(read_config_json(name), printable_path(name + "/config.json"), "get it again",
                                 kConfigDepth)),
        layout(meta_state(load_mixtral_config(name))) {
    check_weights(folder, layout);
  }

  static constexpr int kConfigDepth = 64;
  std::string name;
  HfFolder folder;
  json config;
  State layout;
};

// A key of config.json with another value in B, or that one of them lacks.
struct ConfigDifference {
  std::string key;
  json a, b;  // discarded where it is lacking
};

std::vector<ConfigDifference> config_differences(const json& a, const json& b) {
  const json lacking(json::value_t::discarded);
  json keys = a;
  keys.update(b);
  std::vector<ConfigDifference> differences;
  for (const auto& [key, value] : keys.items()) {
    ConfigDifference difference{key, a.value(key, lacking), b.value(key, lacking)};
    if (difference.a.is_discarded() || difference.b.is_discarded() || difference.a != difference.b)
      differences.push_back(std::move(difference));
  }
  return differences;
}

std::string describe(const ConfigDifference& difference) {
  constexpr size_t kShown = 60;
  const auto side = [](const json& value, const char* name) {
    return value.is_discarded() ? fmt::format("not in {}", name)
                                : fmt::format("{} in {}", printable(value.dump(), kShown), name);
  };
  return fmt::format("config.json: {}: {}, {}\n", printable(difference.key), side(difference.a, "A"),
                     side(difference.b, "B"));
}

std::string describe(const ComparedTensor::Side& side) {
  return fmt::format("{} {}", dtype_name(side.dtype), side.shape.str());
}

// A line of the table.
std::string describe(const ComparedTensor& tensor) {
  if (!tensor.a || !tensor.b)
    return fmt::format("only in {}: {}, {}\n", tensor.a ? "A" : "B", tensor.name,
                       describe(tensor.a ? *tensor.a : *tensor.b));
  const std::string types = fmt::format("{} in A, {} in B", describe(*tensor.a), describe(*tensor.b));
  if (!tensor.is_compared()) return fmt::format("of another shape: {}, {}\n", tensor.name, types);
  return fmt::format("{:>10.3e}  {:>10.3e}  {:>10.3e}  {:>24}  {}{}\n", tensor.relative, tensor.largest, tensor.mean,
                     fmt::format("{} of {}", tensor.differing, tensor.a->shape.elements()), tensor.name,
                     tensor.a->dtype == tensor.b->dtype ? "" : fmt::format(" ({})", types));
}

// What has no numbers comes first, then the largest relative difference; or all by name.
void sort_tensors(std::vector<ComparedTensor>& tensors, const std::string& by) {
  if (by == "name")
    std::ranges::stable_sort(tensors, {}, &ComparedTensor::name);
  else
    std::ranges::stable_sort(
        tensors, {}, [](const ComparedTensor& tensor) { return std::pair(tensor.is_compared(), -tensor.relative); });
}

std::string summary(const std::vector<ComparedTensor>& tensors) {
  const auto same = std::ranges::count_if(tensors, &ComparedTensor::is_same);
  std::string text = fmt::format("{} of {} tensors are the same, bit for bit", same, tensors.size());
  const auto largest = std::ranges::max_element(tensors, {}, &ComparedTensor::largest);
  if (largest != tensors.end() && largest->largest > 0)
    text += fmt::format("; the largest difference is {:.3e}, in {}", largest->largest, largest->name);
  return text + "\n";
}

json number(double value) {
  return std::isfinite(value) ? json(value) : json();
}

json to_json(const std::optional<ComparedTensor::Side>& side) {
  if (!side) return {};
  json shape = json::array();
  for (int d = 0; d < side->shape.rank(); ++d) shape.push_back(side->shape[d]);
  return {{"dtype", dtype_name(side->dtype)}, {"shape", shape}};
}

nlohmann::ordered_json to_json(const ComparedTensor& tensor) {
  nlohmann::ordered_json object = {{"name", tensor.name}, {"a", to_json(tensor.a)}, {"b", to_json(tensor.b)}};
  if (tensor.is_compared()) {
    object["elements"] = tensor.a->shape.elements();
    object["differing"] = tensor.differing;
    object["largest"] = number(tensor.largest);
    object["mean"] = number(tensor.mean);
    object["relative"] = number(tensor.relative);
  }
  return object;
}

void print_json(const DiffSide& a, const DiffSide& b, const std::vector<ConfigDifference>& config,
                const std::vector<ComparedTensor>& tensors, bool same) {
  nlohmann::ordered_json keys = nlohmann::ordered_json::object(), list = nlohmann::ordered_json::array();
  for (const auto& [key, in_a, in_b] : config) {
    if (!in_a.is_discarded()) keys[key]["a"] = in_a;
    if (!in_b.is_discarded()) keys[key]["b"] = in_b;
  }
  for (const ComparedTensor& tensor : tensors) list.push_back(to_json(tensor));
  const nlohmann::ordered_json object = {{"a", printable_path(a.name)},
                                         {"b", printable_path(b.name)},
                                         {"same", same},
                                         {"config", keys},
                                         {"tensors", list}};
  fmt::print("{}\n", object.dump());
}

void print_text(const std::vector<ConfigDifference>& config, const std::vector<ComparedTensor>& tensors) {
  for (const ConfigDifference& difference : config) fmt::print("{}", describe(difference));
  bool head = false;
  for (const ComparedTensor& tensor : tensors) {
    if (tensor.is_same()) continue;
    if (tensor.is_compared() && !std::exchange(head, true))
      fmt::print("{:>10}  {:>10}  {:>10}  {:>24}  {}\n", "relative", "largest", "mean", "differing", "tensor");
    fmt::print("{}", describe(tensor));
  }
  fmt::print("{}", summary(tensors));
}

std::vector<ComparedTensor> compared(const DiffSide& a, const DiffSide& b) {
  ByteProgress progress("compared");
  return compare_models({a.folder, a.layout}, {b.folder, b.layout}, std::ref(progress));
}

void run_diff(const DiffArguments& arguments) {
  const DiffSide a(arguments.a), b(arguments.b);
  const std::vector<ConfigDifference> config = config_differences(a.config, b.config);
  std::vector<ComparedTensor> tensors = compared(a, b);
  sort_tensors(tensors, arguments.sort);
  const bool same = config.empty() && std::ranges::all_of(tensors, &ComparedTensor::is_same);
  if (arguments.json)
    print_json(a, b, config, tensors, same);
  else
    print_text(config, tensors);
  if (!same) throw Ended{static_cast<int>(ExitCode::kFailed)};
}

}  // namespace

Command add_diff(CLI::App& program) {
  CLI::App* app = program.add_subcommand("diff", "Say how far the weights of two models lie apart");
  const auto arguments = std::make_shared<DiffArguments>();
  app->add_option("A", arguments->a, "a checkpoint, a run's folder (its best or latest one) or a model's")
      ->type_name("FOLDER")
      ->required();
  app->add_option("B", arguments->b, "another one")->type_name("FOLDER")->required();
  app->add_option("--sort", arguments->sort, "the largest relative difference first, or by name")
      ->type_name("relative|name")
      ->capture_default_str()
      ->check(CLI::IsMember({"relative", "name"}));
  app->add_flag("--json", arguments->json, "Print one JSON object");
  add_examples(*app, {"mixtune diff examples/quickstart/pretrained examples/quickstart/pretrained",
                      "mixtune diff examples/quickstart/pretrained examples/quickstart/pretrained --sort name --json"});
  return {app, [arguments] {
            run_diff(*arguments);
          }};
}

}  // namespace mixtune
