#include "bench/ladder.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "bench/measure.h"
#include "config/choices.h"
#include "metrics/format_numbers.h"
#include "tensor/out_of_memory.h"
#include "train/instance_options.h"

namespace mixtune {

namespace {

// `precision` of the rungs that are not in 8 bits.
Precision base_precision(const Config& config, const Ranks& ranks) {
  const Precision precision = config.compute.precision;
  if (precision == Precision::kFp8 || precision == Precision::kMxfp8)
    throw UserError(config.where("precision"), "is that of the first two rungs; 8-bit precisions have their own",
                    "use fp32 or bf16, or remove it");
  if (config.origins.contains("precision")) return precision;
  return device_of(config, ranks).type == DeviceType::kCuda ? Precision::kBf16 : Precision::kFp32;
}

// `config`'s compute is what is to be measured. Keys of fp8 alone are for the rung of fp8.
Rung make_rung(Config config, const Ranks& ranks) {
  ComputeSettings& compute = config.compute;
  if (compute.precision != Precision::kFp8) {
    compute.fp8_scaling = ComputeSettings{}.fp8_scaling;
    compute.fp8_power_of_two_scales = ComputeSettings{}.fp8_power_of_two_scales;
  }
  Rung rung = {.name = fmt::format("{}, {}",
                                   names<ExpertsImplementation>()[static_cast<size_t>(compute.experts_implementation)],
                                   names<Precision>()[static_cast<size_t>(compute.precision)])};
  try {
    rung.options = instance_options(config, State::Purpose::kTraining, ranks);
  } catch (const UserError& error) {
    rung.refusal = error;
  }
  return rung;
}

// A rung's turns.
struct Turns {
  std::optional<Error> refusal;
  std::vector<StepBenchResult> results;
};

void take_turn(const LadderBench& bench, const Rung& rung, Turns& turns) {
  StepBench step = bench.step;
  step.options = rung.options;
  try {
    turns.results.push_back(bench_step(step));
    log_info("round {} of {}: {}: {} ms", turns.results.size(), bench.rounds, rung.name,
             step_time(turns.results.back().milliseconds));
  } catch (const OutOfMemory& error) {
    if (step.options.ranks->grid.world > 1) throw;  // the others may have had room
    turns.refusal = Error("", error.what(), kLessMemory, error.exit_code());
  }
}

LadderRow row_of(const Rung& rung, const Turns& turns) {
  LadderRow row = {.name = rung.name};
  if (turns.refusal) {
    row.skipped = printable(turns.refusal->what(), 400);
    return row;
  }
  for (const StepBenchResult& result : turns.results) row.rounds.push_back(result.milliseconds);
  std::vector<StepBenchResult> sorted = turns.results;
  std::ranges::sort(sorted, {}, &StepBenchResult::milliseconds);
  const StepBenchResult& middle = sorted[sorted.size() / 2];
  row.milliseconds = middle.milliseconds;
  row.peak_bytes = middle.state_bytes + middle.activation_bytes;
  row.loss = middle.loss;
  return row;
}

}  // namespace

LadderBench plan_ladder(const StepBench& step, const Config& config, const Ranks& ranks) {
  using enum ExpertsImplementation;
  const Precision base = base_precision(config, ranks);
  LadderBench bench = {.step = step, .rungs = {}};
  for (const auto& [experts, precision] :
       {std::pair{kLoop, base}, std::pair{kGrouped, base}, std::pair{kGrouped, Precision::kFp8},
        std::pair{kGrouped, Precision::kMxfp8}}) {
    Config of_rung = config;
    of_rung.compute.experts_implementation = experts;
    of_rung.compute.precision = precision;
    bench.rungs.push_back(make_rung(of_rung, ranks));
  }
  const auto runs = std::ranges::find_if(bench.rungs, [](const Rung& rung) { return !rung.refusal; });
  if (runs == bench.rungs.end()) throw *bench.rungs.front().refusal;
  bench.step.options = runs->options;
  return bench;
}

LadderResult bench_ladder(const LadderBench& bench) {
  std::vector<Turns> turns;
  for (const Rung& rung : bench.rungs) turns.push_back({.refusal = rung.refusal, .results = {}});
  for (int round = 0; round < bench.rounds; ++round)
    for (size_t i = 0; i < turns.size(); ++i)
      if (!turns[i].refusal) take_turn(bench, bench.rungs[i], turns[i]);

  LadderResult result = {.device = device_name(bench.step.options.device), .rows = {}};
  for (size_t i = 0; i < turns.size(); ++i) result.rows.push_back(row_of(bench.rungs[i], turns[i]));
  if (std::ranges::all_of(turns, [](const Turns& of_rung) { return of_rung.refusal.has_value(); }))
    throw *turns.front().refusal;
  result.rows.insert(result.rows.end(), bench.peers.begin(), bench.peers.end());
  rate_rows(bench.step, result.rows);
  return result;
}

void rate_rows(const StepBench& step, std::vector<LadderRow>& rows) {
  const auto has_time = [](const LadderRow& row) {
    return row.skipped.empty();
  };
  const auto first = std::ranges::find_if(rows, has_time);
  for (LadderRow& row : rows) {
    if (!has_time(row)) continue;
    row.rates = rates_of(step, row.milliseconds);
    row.speed_up = first->milliseconds / row.milliseconds;
  }
}

}  // namespace mixtune
