#include "kernels/gemm/gemm_tuner.h"

#include <algorithm>
#include <limits>

#include "base/random.h"
#include "kernels/cuda_ops.h"
#include "kernels/eight_bit/cuda_ops.h"
#include "kernels/gemm/cuda_ops.h"

namespace mixtune {

namespace {

constexpr int kRuns = 3;                                               // the fastest of them counts
constexpr double kTiny = 20;                                           // microseconds: whatever is chosen will do
constexpr double kHopeless = 1.25;                                     // times the best: one run is enough
constexpr double kBetter = 0.99;                                       // of the best: more than noise
constexpr double kNotTaken = std::numeric_limits<double>::infinity();  // the algorithm does not take the shape

}  // namespace

GemmTuner::GemmTuner(Ctx& ctx, const CublasLt& lt, const GemmKey& shape)
    : ctx_(ctx), lt_(lt), scratch_(ctx.stack.rest()) {
  const auto fits = [&](int64_t tokens) {
    return place(shape.with_tokens(tokens)) <= scratch_.bytes();
  };
  if (fits(shape.tokens())) {
    most_tokens_ = shape.tokens();
    return;
  }
  for (int64_t tokens = token_bucket(1); fits(tokens); tokens = token_bucket(tokens + 1)) most_tokens_ = tokens;
  place(shape.with_tokens(most_tokens_));
}

// Puts a, b and c one behind the other. Returns the bytes they take.
size_t GemmTuner::place(const GemmKey& shape) {
  char* at = static_cast<char*>(scratch_.data);
  const auto take = [&](int64_t elements, DType dtype) {
    const Tensor tensor = {at, {elements}, dtype, scratch_.device};
    at += align_up(tensor.bytes());
    return tensor;
  };
  a_ = take(shape.m * shape.k, shape.operands);
  b_ = take(shape.k * shape.n, shape.operands);
  c_ = take(shape.m * shape.n, shape.result);
  if (shape.operands == DType::kF8E4M3) {
    const ScaleRule rule = shape.scales == DType::kF8E8M0 ? ScaleRule::kMx : ScaleRule::kPowerOfTwo;
    a_scales_ = take(codes_shape(CodesForm::kRows, {.matrix = {shape.m, shape.k}, .scale = rule}).scales, shape.scales);
    b_scales_ =
        take(codes_shape(CodesForm::kSquares, {.matrix = {shape.n, shape.k}, .scale = rule}).scales, shape.scales);
  }
  return at - static_cast<char*>(scratch_.data);
}

// Fills the operands with random bits: zeros would draw less power, and the GPU would run faster than it will.
void GemmTuner::fill() {
  if (filled_) return;
  if (a_.dtype == DType::kF8E4M3) {
    cuda::fill_codes(ctx_, a_, random_key(0, "a"));
    cuda::fill_codes(ctx_, b_, random_key(0, "b"));
    for (const Tensor& scales : {a_scales_, b_scales_}) fill_with_ones(scales);
  } else {
    cuda::fill_normal(ctx_, {.tensor = a_, .key = random_key(0, "a")});
    cuda::fill_normal(ctx_, {.tensor = b_, .key = random_key(0, "b"), .deviation = 0.02});
  }
  cuda::fill_normal(ctx_, {.tensor = c_, .key = random_key(0, "c")});
  filled_ = true;
}

void GemmTuner::fill_with_ones(const Tensor& scales) {
  constexpr int kOne = -kE8M0.smallest;
  if (scales.dtype == DType::kF8E8M0)
    check_cuda(cudaMemsetAsync(scales.data, kOne, scales.bytes(), ctx_.gpu->stream()), "measuring a product");
  else
    cuda::fill_normal(ctx_, {.tensor = scales, .key = 0, .mean = 1, .deviation = 0});
}

GemmChoice GemmTuner::choose(const GemmKey& shape, std::span<const GemmAlgorithm> candidates) {
  MT_CHECK(!candidates.empty());
  if (shape.tokens() > most_tokens_) return {candidates.front()};
  fill();
  GemmProduct product = {.shape = shape, .a = a_.data, .b = b_.data, .c = c_.data};
  if (shape.operands == DType::kF8E4M3) {
    product.a_scales = a_scales_.data;
    product.b_scales = b_scales_.data;
  }
  const GemmAlgorithm* best = nullptr;
  double fastest = kNotTaken;
  for (const GemmAlgorithm& candidate : candidates) {
    const double microseconds = measure(product, candidate, fastest);
    if (microseconds == kNotTaken || (best && microseconds > kBetter * fastest)) continue;
    best = &candidate;
    fastest = microseconds;
    if (fastest < kTiny) break;
  }
  return best ? GemmChoice{*best, fastest} : GemmChoice{candidates.front()};
}

double GemmTuner::measure(const GemmProduct& product, const GemmAlgorithm& algorithm, double best) {
  run(product, algorithm);  // loads the kernel
  double fastest = run(product, algorithm);
  for (int i = 1; i < kRuns && fastest < kHopeless * best; ++i) fastest = std::min(fastest, run(product, algorithm));
  return fastest;
}

// Runs the product. Returns microseconds.
double GemmTuner::run(const GemmProduct& product, const GemmAlgorithm& algorithm) {
  const cudaStream_t stream = ctx_.gpu->stream();
  check_cuda(cudaEventRecord(start_.handle, stream), "measuring a product");
  if (!lt_.multiply(product, algorithm, {ctx_.gpu->workspace(), Gpu::kWorkspaceBytes, stream})) return kNotTaken;
  check_cuda(cudaEventRecord(end_.handle, stream), "measuring a product");
  ctx_.gpu->wait_for(end_.handle);
  float milliseconds = 0;
  check_cuda(cudaEventElapsedTime(&milliseconds, start_.handle, end_.handle), "measuring a product");
  return 1000.0 * milliseconds;
}

}  // namespace mixtune
