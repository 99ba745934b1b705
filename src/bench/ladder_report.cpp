// Prints a LadderResult as a table and as JSON.
#include <fmt/format.h>

#include <algorithm>

#include "base/json_value.h"
#include "base/log.h"
#include "bench/ladder_peers.h"
#include "metrics/format_numbers.h"

namespace mixtune {

namespace {

// Three digits at least, of a GPU's hundreds and of a CPU's hundredths.
std::string rate_text(double rate) {
  return rate < 10 ? fmt::format("{:.3g}", rate) : fmt::format("{:.1f}", rate);
}

std::string line_of(const LadderRow& row, size_t width) {
  const std::string name = fmt::format("{}{}", row.name, row.versions.empty() ? "" : " (peer)");
  if (!row.skipped.empty()) return fmt::format("  {:<{}}  skipped: {}\n", name, width, row.skipped);
  return fmt::format("  {:<{}}  {:>12} {:>12} {:>14} {:>12} {:>9.2f}\n", name, width,
                     fmt::format("{:.2f}", row.milliseconds), grouped(row.rates.tokens_per_second),
                     rate_text(row.rates.tflops), row.peak_bytes > 0 ? format_bytes(row.peak_bytes) : "-",
                     row.speed_up);
}

nlohmann::ordered_json json_of(const LadderRow& row) {
  nlohmann::ordered_json object = {{"name", row.name}, {"peer", !row.versions.empty()}};
  if (!row.versions.empty()) object["versions"] = row.versions;
  if (!row.skipped.empty()) {
    object["skipped"] = row.skipped;
    return object;
  }
  object["milliseconds"] = row.milliseconds;
  if (!row.rounds.empty()) object["rounds_milliseconds"] = row.rounds;
  object["tokens_per_second"] = row.rates.tokens_per_second;
  object["model_tflops"] = row.rates.tflops;
  object["peak_bytes"] = row.peak_bytes > 0 ? nlohmann::ordered_json(row.peak_bytes) : nlohmann::ordered_json();
  object["speed_up"] = row.speed_up;
  if (row.loss) object["loss"] = *row.loss;
  return object;
}

}  // namespace

std::string describe_work(const StepBench& step) {
  const int ranks = step.options.ranks->grid.world;
  return fmt::format("step of {} x {} tokens, documents of {}, {} layers{}", step.accumulate, step.tokens,
                     step.sequence_length / step.documents_per_row, step.model.num_hidden_layers,
                     ranks > 1 ? fmt::format(", each of {} ranks", ranks) : "");
}

std::string print_table(const LadderBench& bench, const LadderResult& result) {
  size_t width = 0;
  for (const LadderRow& row : result.rows)
    width = std::max(width, row.name.size() + (row.versions.empty() ? 0 : std::string_view(" (peer)").size()));
  std::string out = fmt::format("{}: {}; {} rounds by turns, {} steps each\n", result.device, describe_work(bench.step),
                                bench.rounds, bench.step.steps);
  out += fmt::format("  {:<{}}  {:>12} {:>12} {:>14} {:>12} {:>9}\n", "rung", width, "median ms", "tokens/s",
                     "model TFLOP/s", "peak memory", "speed-up");
  for (const LadderRow& row : result.rows) out += line_of(row, width);
  for (const LadderRow& row : result.rows)
    if (!row.versions.empty()) out += fmt::format("  {}: {}\n", row.name, row.versions);
  return out;
}

std::string print_json(const LadderBench& bench, const LadderResult& result) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const LadderRow& row : result.rows) rows.push_back(json_of(row));
  const nlohmann::ordered_json object = {
      {"workload", workload_of(bench)}, {"rounds", bench.rounds}, {"steps", bench.step.steps}, {"rows", rows}};
  return object.dump(2) + "\n";
}

}  // namespace mixtune
