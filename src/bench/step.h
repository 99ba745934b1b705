// 'mixtune bench step': measures a training step on random weights and tokens.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "metrics/metric_sink.h"
#include "model/instance.h"

namespace mixtune {

enum class BenchMode { kForward, kForwardBackward, kStep };

struct StepBench {
  MixtralConfig model;
  InstanceOptions options;
  int64_t tokens = 8192, sequence_length = 4096, documents_per_row = 1, accumulate = 1;
  BenchMode mode = BenchMode::kStep;
  bool balanced = false;     // every expert gets the same number of tokens, whatever the router says
  double max_grad_norm = 0;  // 0: no norm, no clipping
  int steps = 20;            // their median counts
  double settle = 5;         // seconds of steps before these, for the clocks
};

struct StepBenchResult {
  std::string device;
  std::string plans;  // on a GPU: digest of the matrix products' algorithms
  double milliseconds = 0, tokens_per_second = 0;
  double tflops = 0;       // the model's operations (model/operations.h) by the time
  double gemm_tflops = 0;  // those of one large product in the same run
  size_t state_bytes = 0, activation_bytes = 0;
  // 0 without a GPU: memory the run took by CUDA's driver, less that for activations which was never used; memory that
  // was planned for training (plan_memory, balanced).
  size_t device_bytes = 0, planned_bytes = 0;
  double routing_imbalance = 0;  // expert_imbalance of the last step; before kTraining of this rank; 0 in kForward
  int64_t recomputed_layers = 0, late_plans = 0;
  double waits_per_step = 0;  // how often the host waits for the device
  double loss = 0;
  // With several ranks: the slowest rank's in the last step, milliseconds as metrics have them (RankRecord).
  RankRecord exposed;
  struct Part {
    std::string name;
    double milliseconds;  // in a step
  };
  std::vector<Part> parts;  // longest first
};

// What a step of so many milliseconds comes to.
struct StepRates {
  double tokens_per_second, tflops;  // as in StepBenchResult
};
StepRates rates_of(const StepBench& bench, double milliseconds);

// Mixtral 8x7B's shape with `layers` layers.
MixtralConfig mixtral_8x7b(int64_t layers);

StepBenchResult bench_step(const StepBench& bench);
std::string print_table(const StepBench& bench, const StepBenchResult& result);
std::string print_json(const StepBench& bench, const StepBenchResult& result);

}  // namespace mixtune
