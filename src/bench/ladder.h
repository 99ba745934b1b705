// 'mixtune bench ladder': one training step, from experts computed one after the other up to products in 8 bits. A rung
// is a step as 'mixtune bench step' measures it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "bench/step.h"
#include "config/config.h"

namespace mixtune {

struct Rung {
  std::string name;  // "grouped, fp8"
  InstanceOptions options;
  std::optional<UserError> refusal = {};  // why this machine does not run it
};

// A row of the table: a rung, or a peer that was measured elsewhere. Text is printable, of one line.
struct LadderRow {
  std::string name;
  std::string skipped = {};         // why it has no figures; empty: it has
  std::string versions = {};        // a peer's: "torch 2.11.0, transformers 5.17.0"; empty: a rung
  double milliseconds = 0;          // of the round that is the median of all rounds
  std::vector<double> rounds = {};  // a rung's: the milliseconds of each, in their order
  size_t peak_bytes = 0;            // of state and activations; 0: not known
  std::optional<double> loss = {};  // a rung's, after its last step: shows that all did the same work
  StepRates rates = {};             // rate_rows
  double speed_up = 0;              // against the first row that has figures
};

struct LadderBench {
  StepBench step;  // with the options of the first rung that is not refused
  std::vector<Rung> rungs;
  int rounds = 3;
  std::vector<LadderRow> peers = {};
};

struct LadderResult {
  std::string device;
  std::vector<LadderRow> rows;  // the rungs, then the peers
};

// The ladder of `step` with the keys of `config`. `precision`, where it is set, is that of the first two rungs, else
// bf16 on a GPU and fp32 on the CPU. Throws UserError where it is one of 8 bits; and the first rung's refusal where
// every rung is refused.
LadderBench plan_ladder(const StepBench& step, const Config& config, const Ranks& ranks = single_rank());

// Measures the rungs by turns, one round after the other, each as if it were alone: an instance lives only as long as
// its turn. One rank alone takes a rung that is out of memory for refused. All ranks call this.
LadderResult bench_ladder(const LadderBench& bench);

// Gives rows that have a time their rates and speed-up.
void rate_rows(const StepBench& step, std::vector<LadderRow>& rows);

// The rows of the peers in a file of the form of print_json, which bench/peers/ladder.py writes. Throws UserError where
// it is malformed, or has measured something else than `bench` does.
std::vector<LadderRow> read_ladder_peers(const std::string& path, const LadderBench& bench);

std::string print_table(const LadderBench& bench, const LadderResult& result);
std::string print_json(const LadderBench& bench, const LadderResult& result);
// A chart of the rows' tokens a second: an SVG that needs nothing but itself, light or dark as its reader is.
std::string print_svg(const LadderBench& bench, const LadderResult& result);

// "step of 1 x 8192 tokens, documents of 4096, 2 layers"
std::string describe_work(const StepBench& step);

}  // namespace mixtune
