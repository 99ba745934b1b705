// cuBLASLt, opened when it is first needed, as far as mixtune uses it: row-major products by GemmKey.
#pragma once

#include <cublasLt.h>

#include <span>
#include <string>

#include "base/library.h"
#include "kernels/gemm/gemm_choices.h"

namespace mixtune {

struct CublasLtFunctions {
  explicit CublasLtFunctions(const Library& library);

  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtGetStatusString) status_string;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoCheck) algo_check;
  decltype(&cublasLtMatmulAlgoConfigGetAttribute) algo_get;
  decltype(&cublasLtMatmulAlgoGetHeuristic) algo_heuristic;
  decltype(&cublasLtMatmulAlgoGetIds) algo_ids;
  decltype(&cublasLtMatmulDescInit_internal) operation_init;
  decltype(&cublasLtMatmulDescSetAttribute) operation_set;
  decltype(&cublasLtMatmulPreferenceInit_internal) preference_init;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatrixLayoutInit_internal) layout_init;
};

// A product's operands. Memory is row-major; contiguous but for operands in codes, of which a row begins `stride`
// codes behind the one before it (0: contiguous too), and which have scales as quantise.h's kinds do.
struct GemmProduct {
  GemmKey shape;
  const void* a;
  const void* b;
  void* c;
  int64_t a_stride = 0, b_stride = 0;
  const void* a_scales = nullptr;
  const void* b_scales = nullptr;
};

// The scratch a product may use, and where it runs.
struct GemmPlace {
  void* workspace;
  size_t workspace_bytes;
  cudaStream_t stream;
};

class CublasLt {
 public:
  // A shape in cuBLASLt's terms. Small and without an owner: it is made anew for each product.
  struct Problem {
    cublasLtMatmulDescOpaque_t operation;
    cublasLtMatrixLayoutOpaque_t a, b, c;  // column-major, so a is the product's b, transposed
  };

  CublasLt();  // on the current device
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  std::string version() const { return library_version(CudaLibrary::kCublasLt, library_); }

  Problem problem(const GemmProduct& product) const;

  // Writes algorithms for a shape to `found`, the most promising first; returns how many. All of them give the same
  // bits each time and add partial sums in fp32.
  int candidates(const GemmKey& shape, size_t workspace_bytes, std::span<GemmAlgorithm> found) const;

  // Whether `algorithm`, whatever its bits are, could be one of those.
  bool fits(const GemmKey& shape, size_t workspace_bytes, const GemmAlgorithm& algorithm) const;

  // Enqueues the product. Returns false where the algorithm does not take this shape.
  bool multiply(const GemmProduct& product, const GemmAlgorithm& algorithm, const GemmPlace& place) const;

 private:
  void check(cublasStatus_t status, const char* what) const;

  Library library_;
  CublasLtFunctions call_;
  cublasLtHandle_t handle_ = nullptr;
};

}  // namespace mixtune
