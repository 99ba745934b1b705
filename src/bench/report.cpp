// Prints a StepBenchResult.
#include <fmt/format.h>

#include "base/json_value.h"
#include "base/log.h"
#include "bench/step.h"
#include "metrics/fields.h"

namespace mixtune {

namespace {

const char* mode_name(BenchMode mode) {
  constexpr const char* kNames[] = {"forward", "forward-backward", "step"};
  return kNames[static_cast<int>(mode)];
}

const char* recompute_name(Recompute recompute) {
  constexpr const char* kNames[] = {"none", "selective", "full"};
  return kNames[static_cast<int>(recompute)];
}

double used_of_plan(const StepBenchResult& r) {
  return static_cast<double>(r.device_bytes) / static_cast<double>(r.planned_bytes);
}

// Bytes, and a time beside that of the step.
std::string shown(int64_t bytes, const StepBenchResult&) {
  return fmt::format("{:.2f} GB", static_cast<double>(bytes) / 1e9);
}
std::string shown(double milliseconds, const StepBenchResult& r) {
  return fmt::format("{:.2f} ms {:4.1f}%", milliseconds, 100 * milliseconds / r.milliseconds);
}

// The number as JSON; null where it is not known.
template <class Number>
nlohmann::ordered_json known(Number number) {
  return number > 0 ? nlohmann::ordered_json(number) : nlohmann::ordered_json();
}

}  // namespace

std::string print_table(const StepBench& bench, const StepBenchResult& r) {
  std::string out =
      fmt::format("{}: {} of {} x {} tokens, documents of {}, {} layers, {}\n", r.device, mode_name(bench.mode),
                  bench.accumulate, bench.tokens, bench.sequence_length / bench.documents_per_row,
                  bench.model.num_hidden_layers, dtype_name(bench.options.types.weights));
  const auto row = [&](std::string_view name, const std::string& value) {
    out += fmt::format("  {:<34} {:>14}\n", name, value);
  };
  row("milliseconds (median)", fmt::format("{:.2f}", r.milliseconds));
  row("tokens a second", fmt::format("{:.0f}", r.tokens_per_second));
  row("model TFLOP/s", fmt::format("{:.1f}", r.tflops));
  row("GEMM TFLOP/s, same run", fmt::format("{:.1f}", r.gemm_tflops));
  row("fraction of it", fmt::format("{:.1f}%", 100 * r.tflops / r.gemm_tflops));
  row("state", format_bytes(r.state_bytes));
  row("activations, peak", format_bytes(r.activation_bytes));
  if (r.device_bytes > 0) row("device memory, as CUDA counts it", format_bytes(r.device_bytes));
  if (r.planned_bytes > 0) {
    row("planned, as by mixtune estimate", format_bytes(r.planned_bytes));
    row("used of the plan", fmt::format("{:.1f}%", 100 * used_of_plan(r)));
  }
  const RankGrid& grid = bench.options.ranks->grid;
  if (grid.world > 1) row("ranks", grid.str());
  if (grid.world > 1 && bench.mode != BenchMode::kForward) {
    for (const RankField& field : kRankFields)
      if (field.bench_name) field.of(r.exposed, [&](auto number) { row(field.bench_label, shown(number, r)); });
  }
  if (r.routing_imbalance > 0) row("routing, largest expert / mean", fmt::format("{:.3f}", r.routing_imbalance));
  row("recomputed layers", fmt::format("{}", r.recomputed_layers));
  row("host waits a step", fmt::format("{:.1f}", r.waits_per_step));
  row("plans built after warm-up", fmt::format("{}", r.late_plans));
  row("loss", fmt::format("{:.4f}", r.loss));
  double sum = 0;
  for (const StepBenchResult::Part& part : r.parts) sum += part.milliseconds;
  out += "  parts\n";
  for (const StepBenchResult::Part& part : r.parts)
    out +=
        fmt::format("    {:<32} {:>11.3f} ms {:>6.1f}%\n", part.name, part.milliseconds, 100 * part.milliseconds / sum);
  return out;
}

std::string print_json(const StepBench& bench, const StepBenchResult& r) {
  nlohmann::ordered_json parts;
  for (const StepBenchResult::Part& part : r.parts) parts[part.name] = part.milliseconds;
  const StateTypes& types = bench.options.types;
  const RankGrid& grid = bench.options.ranks->grid;
  nlohmann::ordered_json object = {
      {"device", r.device},
      {"mode", mode_name(bench.mode)},
      {"layers", bench.model.num_hidden_layers},
      {"hidden_size", bench.model.hidden_size},
      {"tokens", bench.tokens},
      {"accumulate", bench.accumulate},
      {"document_tokens", bench.sequence_length / bench.documents_per_row},
      {"weights", dtype_name(types.weights)},
      {"master_weights", types.masters},
      {"gradients", dtype_name(types.gradients)},
      {"moments", dtype_name(types.moments)},
      {"max_grad_norm", bench.max_grad_norm},
      {"recompute", recompute_name(bench.options.recompute)},
      {"experts", bench.options.recipe.experts == ExpertsImplementation::kLoop ? "loop" : "grouped"},
      {"deterministic", bench.options.gpu.deterministic},
      {"balanced", bench.balanced},
      {"ranks", grid.world > 1 ? nlohmann::ordered_json(grid.str()) : nlohmann::ordered_json()},
      {"milliseconds", r.milliseconds},
      {"tokens_per_second", r.tokens_per_second},
      {"model_tflops", r.tflops},
      {"gemm_tflops", r.gemm_tflops},
      {"state_bytes", r.state_bytes},
      {"activation_bytes", r.activation_bytes},
      {"device_bytes", known(r.device_bytes)},
      {"planned_bytes", known(r.planned_bytes)},
      {"used_of_plan", known(r.planned_bytes > 0 ? used_of_plan(r) : 0)},
      {"routing_max_over_mean", known(r.routing_imbalance)},
      {"recomputed_layers", r.recomputed_layers},
      {"waits_per_step", r.waits_per_step},
      {"late_plans", r.late_plans},
      {"plans", r.plans},
      {"loss", r.loss},
  };
  for (const RankField& field : kRankFields)
    if (field.bench_name) field.of(r.exposed, [&](auto number) { object[field.bench_name] = known(number); });
  object["parts_milliseconds"] = parts;
  return object.dump(2) + "\n";
}

}  // namespace mixtune
