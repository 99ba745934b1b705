// GemmTuner: measures which algorithm computes a product fastest, on random operands in memory that nobody uses.
#pragma once

#include <span>

#include "kernels/gemm/cublaslt.h"
#include "tensor/ctx.h"
#include "tensor/gpu.h"

namespace mixtune {

class GemmTuner {
 public:
  // Takes the rest of ctx.stack, for products of this shape with as many tokens as it has, or as there is room for.
  GemmTuner(Ctx& ctx, const CublasLt& lt, const GemmKey& shape);

  // The fastest of `candidates`; the first, not measured, where there is no room. The host waits for the GPU.
  GemmChoice choose(const GemmKey& shape, std::span<const GemmAlgorithm> candidates);

 private:
  size_t place(const GemmKey& shape);
  void fill();
  void fill_with_ones(const Tensor& scales);
  double measure(const GemmProduct& product, const GemmAlgorithm& algorithm, double best);
  double run(const GemmProduct& product, const GemmAlgorithm& algorithm);

  Ctx& ctx_;
  const CublasLt& lt_;
  Tensor scratch_;
  int64_t most_tokens_ = 0;  // the most there is room for
  Tensor a_, b_, c_;
  Tensor a_scales_, b_scales_;  // of codes
  bool filled_ = false;
  CudaEvent start_ = make_event(true), end_ = make_event(true);
};

}  // namespace mixtune
