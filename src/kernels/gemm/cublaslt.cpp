#include "kernels/gemm/cublaslt.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "base/error.h"

namespace mixtune {

CublasLtFunctions::CublasLtFunctions(const Library& library) {
  library.load(create, "cublasLtCreate");
  library.load(destroy, "cublasLtDestroy");
  library.load(status_string, "cublasLtGetStatusString");
  library.load(matmul, "cublasLtMatmul");
  library.load(algo_check, "cublasLtMatmulAlgoCheck");
  library.load(algo_get, "cublasLtMatmulAlgoConfigGetAttribute");
  library.load(algo_heuristic, "cublasLtMatmulAlgoGetHeuristic");
  library.load(algo_ids, "cublasLtMatmulAlgoGetIds");
  library.load(operation_init, "cublasLtMatmulDescInit_internal");
  library.load(operation_set, "cublasLtMatmulDescSetAttribute");
  library.load(preference_init, "cublasLtMatmulPreferenceInit_internal");
  library.load(preference_set, "cublasLtMatmulPreferenceSetAttribute");
  library.load(layout_init, "cublasLtMatrixLayoutInit_internal");
}

namespace {

constexpr cublasComputeType_t kCompute = CUBLAS_COMPUTE_32F;  // for fp32 operands too: TF32 is another type
constexpr cudaDataType_t kScale = CUDA_R_32F;

// Sums may be split, and their parts added in fp32 and in a fixed order. Parts may neither be added into C as they
// come, nor kept in C's dtype.
constexpr uint32_t kReductions = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;

cudaDataType_t data_type(DType dtype) {
  if (dtype == DType::kF8E4M3) return CUDA_R_8F_E4M3;
  MT_CHECK(dtype == DType::kF32 || dtype == DType::kBF16);
  return dtype == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F;
}

// A product that is only asked about. Its scales need an address, which nothing reads.
GemmProduct any_product(const GemmKey& shape) {
  const auto* scales = reinterpret_cast<const void*>(uintptr_t{256});
  return {.shape = shape, .a_scales = scales, .b_scales = scales};
}

}  // namespace

CublasLt::CublasLt() : library_(open_library(CudaLibrary::kCublasLt)), call_(library_) {
  check(call_.create(&handle_), "opening it");
}

CublasLt::~CublasLt() {
  if (handle_ != nullptr) call_.destroy(handle_);
}

void CublasLt::check(cublasStatus_t status, const char* what) const {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error("cuBLASLt", fmt::format("{}: {}", what, call_.status_string(status)),
              "run 'mixtune doctor'; if the GPU is well, please report this");
}

CublasLt::Problem CublasLt::problem(const GemmProduct& product) const {
  const GemmKey& shape = product.shape;
  const bool codes = shape.operands == DType::kF8E4M3, trans_a = shape.trans_a && !codes,
             trans_b = shape.trans_b || codes;
  Problem p;
  const auto set = [&](cublasLtMatmulDescAttributes_t name, auto value) {
    check(call_.operation_set(&p.operation, name, &value, sizeof(value)), "operation");
  };
  // A row-major [rows, columns] is a column-major [columns, rows].
  const auto layout = [&](cublasLtMatrixLayoutOpaque_t& matrix, DType dtype, int64_t rows, int64_t columns,
                          int64_t stride) {
    check(call_.layout_init(&matrix, sizeof(matrix), data_type(dtype), columns, rows, stride > 0 ? stride : columns),
          "layout");
  };
  check(call_.operation_init(&p.operation, sizeof(p.operation), kCompute, kScale), "operation");
  set(CUBLASLT_MATMUL_DESC_TRANSA, static_cast<int32_t>(trans_b ? CUBLAS_OP_T : CUBLAS_OP_N));
  set(CUBLASLT_MATMUL_DESC_TRANSB, static_cast<int32_t>(trans_a ? CUBLAS_OP_T : CUBLAS_OP_N));
  if (codes) {
    const bool mx = shape.scales == DType::kF8E8M0;
    const auto left = mx ? CUBLASLT_MATMUL_MATRIX_SCALE_VEC32_UE8M0 : CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F,
               right = mx ? CUBLASLT_MATMUL_MATRIX_SCALE_VEC32_UE8M0 : CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F;
    set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, static_cast<int32_t>(right));
    set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, static_cast<int32_t>(left));
    set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, product.b_scales);
    set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, product.a_scales);
  }
  layout(p.a, shape.operands, trans_b ? shape.n : shape.k, trans_b ? shape.k : shape.n, product.b_stride);
  layout(p.b, shape.operands, trans_a ? shape.k : shape.m, trans_a ? shape.m : shape.k, product.a_stride);
  layout(p.c, shape.result, shape.m, shape.n, 0);
  return p;
}

int CublasLt::candidates(const GemmKey& shape, size_t workspace_bytes, std::span<GemmAlgorithm> found) const {
  cublasLtMatmulPreferenceOpaque_t preference;
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t name, auto value) {
    check(call_.preference_set(&preference, name, &value, sizeof(value)), "preference");
  };
  check(call_.preference_init(&preference, sizeof(preference)), "preference");
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(workspace_bytes));
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, kReductions);
  for (const auto name : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    set(name, static_cast<uint32_t>(shape.alignment));

  Problem p = problem(any_product(shape));
  std::vector<cublasLtMatmulHeuristicResult_t> results(found.size());
  int count = 0;
  const cublasStatus_t status = call_.algo_heuristic(handle_, &p.operation, &p.a, &p.b, &p.c, &p.c, &preference,
                                                     static_cast<int>(results.size()), results.data(), &count);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return 0;
  check(status, "choosing an algorithm");
  int good = 0;
  for (const auto& result : std::span(results).first(count))
    if (result.state == CUBLAS_STATUS_SUCCESS) found[good++] = std::bit_cast<GemmAlgorithm>(result.algo);
  return good;
}

bool CublasLt::fits(const GemmKey& shape, size_t workspace_bytes, const GemmAlgorithm& algorithm) const {
  const auto algo = std::bit_cast<cublasLtMatmulAlgo_t>(algorithm);
  const auto read = [&](cublasLtMatmulAlgoConfigAttributes_t name, auto& value) {
    size_t written = 0;
    return call_.algo_get(&algo, name, &value, sizeof(value), &written) == CUBLAS_STATUS_SUCCESS;
  };
  int32_t id = -1;
  uint32_t reduction = ~0u;
  if (!read(CUBLASLT_ALGO_CONFIG_ID, id) || !read(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, reduction)) return false;
  if ((reduction & ~kReductions) != 0) return false;

  std::array<int, 512> ids;
  int count = 0;
  const cudaDataType_t in = data_type(shape.operands), out = data_type(shape.result);
  if (call_.algo_ids(handle_, kCompute, kScale, in, in, out, out, ids.size(), ids.data(), &count) !=
      CUBLAS_STATUS_SUCCESS)
    return false;
  if (std::find(ids.begin(), ids.begin() + count, id) == ids.begin() + count) return false;

  Problem p = problem(any_product(shape));
  cublasLtMatmulHeuristicResult_t result{};
  return call_.algo_check(handle_, &p.operation, &p.a, &p.b, &p.c, &p.c, &algo, &result) == CUBLAS_STATUS_SUCCESS &&
         result.workspaceSize <= workspace_bytes;
}

bool CublasLt::multiply(const GemmProduct& product, const GemmAlgorithm& algorithm, const GemmPlace& place) const {
  Problem p = problem(product);
  const auto algo = std::bit_cast<cublasLtMatmulAlgo_t>(algorithm);
  const float one = 1, beta = product.shape.accumulate ? 1 : 0;
  const cublasStatus_t status =
      call_.matmul(handle_, &p.operation, &one, product.b, &p.a, product.a, &p.b, &beta, product.c, &p.c, product.c,
                   &p.c, &algo, place.workspace, place.workspace_bytes, place.stream);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE ||
      status == CUBLAS_STATUS_ARCH_MISMATCH)
    return false;
  check(status, "matrix product");
  return true;
}

}  // namespace mixtune
