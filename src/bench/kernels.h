// 'mixtune bench kernels': times each op by itself, against the best that the device can do.
#pragma once

#include <string>
#include <vector>

#include "bench/kernel_table.h"

namespace mixtune {

struct KernelBench {
  MixtralConfig model;  // the shape; layers do not matter
  InstanceOptions options;
  int64_t tokens = 16384, document_tokens = 4096;
  int runs = 20;        // their median counts
  double settle = 0.5;  // seconds of each op before the runs
};

struct KernelBenchResult {
  std::string device;
  double copy_rate = 0, gemm_rate = 0;  // TB/s and TFLOP/s, in the same run
  struct Row {
    std::string name;
    double milliseconds;
    KernelCost cost;
  };
  std::vector<Row> rows;

  static double rate(const Row& row) { return row.cost.amount / row.milliseconds / 1e9; }  // TB/s or TFLOP/s
  double roofline(const Row& row) const { return row.cost.is_product ? gemm_rate : copy_rate; }
};

KernelBenchResult bench_kernels(const KernelBench& bench);
std::string print_table(const KernelBench& bench, const KernelBenchResult& result);
std::string print_json(const KernelBench& bench, const KernelBenchResult& result);

}  // namespace mixtune
