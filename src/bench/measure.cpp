#include "bench/measure.h"

#include <algorithm>
#include <chrono>

#include "base/median.h"
#include "kernels/fill.h"
#include "kernels/gemm/gemm.h"
#include "tensor/profiler.h"

namespace mixtune {

namespace {

constexpr int kRuns = 20;

}  // namespace

std::string device_name(Device device) {
  return device.type == DeviceType::kCuda ? gpu_info(device.index).name : "CPU";
}

std::vector<double> times(Ctx& ctx, int count, const Work& run, const Work& before) {
  const auto clock = make_stamp_clock(ctx);
  std::vector<double> result;
  for (int i = 0; i < count; ++i) {
    clock->reset();
    if (before) before();
    const int begin = clock->stamp();
    run();
    const int end = clock->stamp();
    wait(ctx);
    result.push_back(clock->milliseconds(begin, end));
  }
  return result;
}

void run_for(Ctx& ctx, double seconds, const Work& run) {
  const auto start = std::chrono::steady_clock::now();
  do {
    run();
    wait(ctx);
  } while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds);
}

double copy_rate(Ctx& ctx) {
  const Frame frame(ctx);
  const size_t most = size_t{1} << (ctx.like_gpu() ? 30 : 26);
  const auto bytes = static_cast<int64_t>(std::min(most, ctx.stack.left() / 2 / kAlignment * kAlignment));
  const Tensor from = ctx.stack.push("from", {bytes}, DType::kU8), to = ctx.stack.push("to", {bytes}, DType::kU8);
  const auto run = [&] {
    copy(ctx, from, to);
  };
  zero(ctx, from);  // host pages are there once they are touched
  run();
  return 2 * static_cast<double>(bytes) / median(times(ctx, kRuns, run)) / 1e9;
}

double gemm_rate(Ctx& ctx, DType dtype, double seconds) {
  const Frame frame(ctx);
  int64_t n = ctx.like_gpu() ? 8192 : 1024;
  while (n > 256 && 4 * n * n * dtype_size(dtype) > ctx.stack.left()) n /= 2;
  const Tensor a = ctx.stack.push("a", {n, n}, dtype), b = ctx.stack.push("b", {n, n}, dtype),
               c = ctx.stack.push("c", {n, n}, dtype);
  fill_normal(ctx, {.tensor = a, .key = 1});
  fill_normal(ctx, {.tensor = b, .key = 2});
  const auto run = [&] {
    gemm(ctx, {.a = a, .b = b, .c = c, .trans_b = true});
  };
  run_for(ctx, seconds, run);
  const auto n3 = static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
  return 2 * n3 / median(times(ctx, kRuns, run)) / 1e9;
}

}  // namespace mixtune
