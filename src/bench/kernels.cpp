#include "bench/kernels.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json_value.h"
#include "base/median.h"
#include "kernels/optimizer.h"
#include "kernels/warm_up.h"

namespace mixtune {

namespace {

constexpr int64_t kMoreThanCache = int64_t{1} << 28;  // bytes

// Reads so much that nothing else is left in a GPU's cache. That also gives the host time to put the next op on the
// stream, so that its clock sees no launch. On the CPU does nothing.
class ColdCache {
 public:
  explicit ColdCache(Ctx& ctx) : ctx_(ctx) {
    if (!ctx.like_gpu()) return;
    memory_ = ctx.stack.push("cache", {kMoreThanCache / 4}, DType::kF32);
    sum_ = ctx.stack.push("sum", {1}, DType::kF64);
  }

  void operator()() const {
    if (memory_) sum_of_squares(ctx_, {&memory_, 1}, sum_);
  }

 private:
  Ctx& ctx_;
  Tensor memory_, sum_;
};

std::string_view unit(const KernelBenchResult::Row& row) {
  return row.cost.is_product ? "TFLOP/s" : "TB/s";
}

}  // namespace

KernelBenchResult bench_kernels(const KernelBench& bench) {
  MixtralConfig shape = bench.model;
  shape.num_hidden_layers = 0;  // the instance is needed for its device and stacks alone
  Instance instance(shape, bench.options);
  Ctx& ctx = instance.ctx();
  KernelBenchResult result = {.device = device_name(bench.options.device),
                              .copy_rate = copy_rate(ctx),
                              .gemm_rate = gemm_rate(ctx, instance.model().dtype(), bench.settle)};
  const int64_t length = std::min(bench.tokens, bench.document_tokens);
  const RandomBatch random({bench.tokens, length, shape.vocab_size}, 1, instance.host_memory());
  KernelOperands operands(instance, random);
  begin_warm_up(
      ctx, operands.attention, operands.dtype,
      {.tokens = operands.T, .longest_document = length, .documents = operands.batch.host_doc_offsets.rows() - 1});
  const ColdCache cold_cache(ctx);
  for (const KernelRow& row : kernel_table(operands)) {
    const Frame frame(ctx);
    const PreparedKernel kernel = row.prepare(operands);
    run_for(ctx, bench.settle, kernel.run);
    result.rows.push_back({row.name, median(times(ctx, bench.runs, kernel.run, cold_cache)), kernel.cost});
  }
  finish_warm_up(ctx);
  return result;
}

std::string print_table(const KernelBench& bench, const KernelBenchResult& r) {
  const MixtralConfig& c = bench.model;
  std::string out = fmt::format("{}, {}: {} tokens, {} hidden, {} ffn, {} of {} experts\n", r.device,
                                dtype_name(bench.options.types.weights), bench.tokens, c.hidden_size,
                                c.intermediate_size, c.num_experts_per_tok, c.num_local_experts);
  out += fmt::format("roofline: copy {:.3g} TB/s, GEMM {:.4g} TFLOP/s\n", r.copy_rate, r.gemm_rate);
  out += fmt::format("  {:<34} {:>10} {:>14} {:>16} {:>9}\n", "op", "ms", "moves or does", "rate", "roofline");
  for (const KernelBenchResult::Row& row : r.rows) {
    const double rate = KernelBenchResult::rate(row);
    out += fmt::format("  {:<34} {:>10.4f} {:>14} {:>16} {:>8.1f}%\n", row.name, row.milliseconds,
                       fmt::format("{:.4g} {}", row.cost.amount / 1e9, row.cost.is_product ? "GFLOP" : "GB"),
                       fmt::format("{:.4g} {}", rate, unit(row)), 100 * rate / r.roofline(row));
  }
  return out;
}

std::string print_json(const KernelBench& bench, const KernelBenchResult& r) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const KernelBenchResult::Row& row : r.rows) {
    const double rate = KernelBenchResult::rate(row);
    rows.push_back({{"op", row.name},
                    {"milliseconds", row.milliseconds},
                    {row.cost.is_product ? "flops" : "bytes", row.cost.amount},
                    {"rate", rate},
                    {"unit", unit(row)},
                    {"roofline", rate / r.roofline(row)}});
  }
  const nlohmann::ordered_json object = {{"device", r.device},
                                         {"precision", dtype_name(bench.options.types.weights)},
                                         {"gradients", dtype_name(bench.options.types.gradients)},
                                         {"tokens", bench.tokens},
                                         {"copy_tb_per_second", r.copy_rate},
                                         {"gemm_tflops", r.gemm_rate},
                                         {"ops", rows}};
  return object.dump(2) + "\n";
}

}  // namespace mixtune
