// CUDA kernels of thin_gemm.h. A block loads tiles by cp.async, some stages ahead, and multiplies with mma.m16n8k16.
// Rows of tiles in shared memory are 16 bytes longer than their data: so ldmatrix meets each bank once.
#include <algorithm>

#include "kernels/cuda_math.cuh"
#include "kernels/gemm/gemm_cuda.h"
#include "kernels/gemm/thin_gemm.h"
#include "kernels/ptx.cuh"

namespace mixtune::cuda {

namespace {

constexpr int kStep = 64, kStages = 4;  // of the summed dimension, a stage's elements
constexpr int kVectorElements = 8;      // of 16 bytes

// The rows [begin, end) of each group.
struct Groups {
  int size;
  int begin[kThinGroups], end[kThinGroups];

  __device__ int of_row(int row) const {
    int e = 0;
    while (e < size && !(begin[e] <= row && row < end[e])) ++e;
    return e;
  }
};

// A matrix in global memory; all is within [rows, columns], and zeros are read beyond.
struct Matrix {
  const bf16* data;
  int rows, columns;
  int64_t stride;
};

// Tiles of kRows x kColumns bf16 in shared memory.
template <int kRows, int kColumns>
struct Tile {
  static constexpr int kRowBytes = kColumns * 2 + 16, kBytes = kRows * kRowBytes;

  template <int kThreads>
  static __device__ void load(uint32_t to, const Matrix& from, int row, int column) {
    constexpr int kVectors = kColumns / kVectorElements;
#pragma unroll
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kVectors; i += kThreads) {
      const int r = i / kVectors, c = i % kVectors * kVectorElements;
      const bool valid = row + r < from.rows && column + c < from.columns;
      const bf16* source = from.data + (valid ? (row + r) * from.stride + column + c : 0);
      ptx::copy_async(to + r * kRowBytes + c * 2, source, valid);
    }
  }
  static __device__ uint32_t at(uint32_t tile, int row, int column) {
    return tile + row * kRowBytes + column * 2;
  }
};

// A lane's place in the four matrices that ldmatrix loads: of each the row, and which of the four.
struct LanePlace {
  int row = static_cast<int>(threadIdx.x) % 8, first = static_cast<int>(threadIdx.x) / 8 % 2 * 8,
      second = static_cast<int>(threadIdx.x) / 16 % 2 * 8;
};

// c [16, 8 kTiles] += a [16, 16] b, at k of the tiles in shared memory. kTransposed: the tile has rows of k.
template <class T, bool kTransposed>
__device__ void load_left(uint32_t (&a)[4], uint32_t tile, int m, int k) {
  const LanePlace lane;
  if constexpr (kTransposed)
    ptx::load_matrices_transposed(a, T::at(tile, k + lane.second + lane.row, m + lane.first));
  else
    ptx::load_matrices(a, T::at(tile, m + lane.first + lane.row, k + lane.second));
}
template <class T, bool kTransposed, int kTiles>
__device__ void multiply_right(float (&c)[kTiles][4], const uint32_t (&a)[4], uint32_t tile, int k) {
  const LanePlace lane;
#pragma unroll
  for (int n = 0; n < kTiles; n += 2) {
    uint32_t b[4];  // of two tiles of 8 columns
    if constexpr (kTransposed)
      ptx::load_matrices(b, T::at(tile, n * 8 + lane.second + lane.row, k + lane.first));
    else
      ptx::load_matrices_transposed(b, T::at(tile, k + lane.first + lane.row, n * 8 + lane.second));
    ptx::multiply(c[n], a, b[0], b[1]);
    ptx::multiply(c[n + 1], a, b[2], b[3]);
  }
}

// Runs load(stage, step) some steps ahead of use(stage, step).
template <class Load, class Use>
__device__ void pipeline(int steps, const Load& load, const Use& use) {
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < steps) load(s, s);
    ptx::commit_copies();
  }
  for (int s = 0; s < steps; ++s) {
    ptx::wait_copies<kStages - 2>();
    __syncthreads();
    if (const int next = s + kStages - 1; next < steps) load(next % kStages, next);
    ptx::commit_copies();
    use(s % kStages, s);
  }
}

__device__ void store(float* to, float a) {
  *to = a;
}
__device__ void store(bf16* to, float a) {
  *to = __float2bfloat16_rn(a);
}

struct Product {
  Matrix x;
  const bf16* w;     // of group e from e * w_elements on
  void* y;           // bf16 [R, n]; of gradients fp32 or bf16
  int64_t elements;  // of a group's w, or of its gradient
  int n, k;
  bool accumulate;
};

// y [R, n] = x [R, K] W_e, n <= kColumns: a warp has 16 rows.
template <int kRows, int kColumns, bool kTransposed>
struct NarrowResult {
  using Left = Tile<kRows, kStep>;
  using Right = Tile<kTransposed ? kColumns : kStep, kTransposed ? kStep : kColumns>;
  static constexpr int kThreads = 2 * kRows, kStageBytes = Left::kBytes + Right::kBytes,
                       kSharedBytes = kStages * kStageBytes;
};

template <int kRows, int kColumns, bool kTransposed>
__global__ void __launch_bounds__(2 * kRows)
    narrow_result_kernel(const __grid_constant__ Product p, const __grid_constant__ Groups groups) {
  using T = NarrowResult<kRows, kColumns, kTransposed>;
  extern __shared__ uint4 shared[];
  const int first = static_cast<int>(blockIdx.x) * kRows, e = groups.of_row(first);
  if (e == groups.size) return;
  Matrix x = p.x;
  x.rows = groups.end[e];
  const Matrix w = {p.w + e * p.elements, kTransposed ? p.n : p.k, kTransposed ? p.k : p.n, kTransposed ? p.k : p.n};
  const uint32_t tiles = ptx::shared_address(shared);
  const int m = static_cast<int>(threadIdx.x) / kWarp * 16;
  float c[kColumns / 8][4] = {};
  pipeline(
      p.k / kStep,
      [&](int stage, int step) {
        const uint32_t left = tiles + stage * T::kStageBytes, right = left + T::Left::kBytes;
        T::Left::template load<T::kThreads>(left, x, first, step * kStep);
        T::Right::template load<T::kThreads>(right, w, kTransposed ? 0 : step * kStep, kTransposed ? step * kStep : 0);
      },
      [&](int stage, int) {
        const uint32_t left = tiles + stage * T::kStageBytes, right = left + T::Left::kBytes;
#pragma unroll
        for (int k = 0; k < kStep; k += 16) {
          uint32_t a[4];
          load_left<typename T::Left, false>(a, left, m, k);
          multiply_right<typename T::Right, kTransposed>(c, a, right, k);
        }
      });
  const int group = static_cast<int>(threadIdx.x) % kWarp / 4, quad = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int j = 0; j < kColumns / 8; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = first + m + group + i / 2 * 8, column = j * 8 + 2 * quad + i % 2;
      if (row >= x.rows || column >= p.n) continue;
      bf16* to = static_cast<bf16*>(p.y) + int64_t{row} * p.n + column;
      store(to, p.accumulate ? to_float(*to) + c[j][i] : c[j][i]);
    }
}

// y [R, N] = x [R, k] W_e, k <= kInner: a block has 128 rows and 64 columns of y, a warp 16 rows of these.
template <int kInner, bool kTransposed>
struct ShortSum {
  static constexpr int kRows = 128, kColumns = 64, kThreads = 2 * kRows;
  using Left = Tile<kRows, kInner>;
  using Right = Tile<kTransposed ? kColumns : kInner, kTransposed ? kInner : kColumns>;
  static constexpr int kResultRow = kColumns + 4;  // fp32
  static constexpr int kResultBytes = 16 * kResultRow * 4, kOperandBytes = Left::kBytes + Right::kBytes,
                       kSharedBytes = kOperandBytes + kThreads / kWarp * kResultBytes;
};

template <int kInner, bool kTransposed>
__global__ void __launch_bounds__(256)
    short_sum_kernel(const __grid_constant__ Product p, const __grid_constant__ Groups groups) {
  using T = ShortSum<kInner, kTransposed>;
  constexpr int kVectors = T::kColumns / kVectorElements, kTurns = 16 * kVectors / kWarp;
  extern __shared__ uint4 shared[];
  const int first = static_cast<int>(blockIdx.y) * T::kRows, n = static_cast<int>(blockIdx.x) * T::kColumns;
  const int e = groups.of_row(first);
  if (e == groups.size) return;
  Matrix x = p.x;
  x.rows = groups.end[e];
  const Matrix w = {p.w + e * p.elements, kTransposed ? p.n : p.k, kTransposed ? p.k : p.n, kTransposed ? p.k : p.n};
  const uint32_t left = ptx::shared_address(shared), right = left + T::Left::kBytes;
  T::Left::template load<T::kThreads>(left, x, first, 0);
  T::Right::template load<T::kThreads>(right, w, kTransposed ? n : 0, kTransposed ? 0 : n);
  ptx::commit_copies();

  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  // A turn is 4 rows: a lane has 8 columns of one.
  const int row = first + warp * 16 + lane / kVectors, column = n + lane % kVectors * kVectorElements;
  bf16* const y = static_cast<bf16*>(p.y) + int64_t{row} * p.n + column;
  float before[kTurns][kVectorElements] = {};
  if (p.accumulate)
#pragma unroll
    for (int i = 0; i < kTurns; ++i)
      if (row + 4 * i < x.rows) load_vector(y + int64_t{4 * i} * p.n, before[i]);

  ptx::wait_copies<0>();
  __syncthreads();
  float c[T::kColumns / 8][4] = {};
#pragma unroll
  for (int k = 0; k < kInner; k += 16) {
    uint32_t a[4];
    load_left<typename T::Left, false>(a, left, warp * 16, k);
    multiply_right<typename T::Right, kTransposed>(c, a, right, k);
  }
  float* const result = reinterpret_cast<float*>(shared) + (T::kOperandBytes + warp * T::kResultBytes) / 4;
#pragma unroll
  for (int j = 0; j < T::kColumns / 8; ++j)
#pragma unroll
    for (int i = 0; i < 2; ++i)
      *reinterpret_cast<float2*>(result + (lane / 4 + 8 * i) * T::kResultRow + j * 8 + lane % 4 * 2) =
          make_float2(c[j][2 * i], c[j][2 * i + 1]);
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kTurns; ++i) {
    if (row + 4 * i >= x.rows) continue;
    const float* from = result + (lane / kVectors + 4 * i) * T::kResultRow + lane % kVectors * kVectorElements;
    float sum[kVectorElements];
#pragma unroll
    for (int j = 0; j < kVectorElements; ++j) sum[j] = before[i][j] + from[j];
    store_vector(y + int64_t{4 * i} * p.n, sum);
  }
}

// The gradient of a wide side (64 columns of it a block, 16 a warp) and a thin one, summed over the group's rows:
// wide^T thin, stored so [N, k], or as its transpose [k, N].
template <int kColumns>
struct ThinGradient {
  using Left = Tile<kStep, 64>;
  using Right = Tile<kStep, kColumns>;
  static constexpr int kThreads = 128, kStageBytes = Left::kBytes + Right::kBytes, kSharedBytes = kStages * kStageBytes;
};

struct Gradient {
  Matrix wide, thin;
  void* dw;
  bool transposed, accumulate;
};

template <int kColumns, class S>
__global__ void __launch_bounds__(128)
    thin_gradient_kernel(const __grid_constant__ Gradient p, const __grid_constant__ Groups groups) {
  using T = ThinGradient<kColumns>;
  extern __shared__ uint4 shared[];
  const int first = static_cast<int>(blockIdx.x) * 64, e = static_cast<int>(blockIdx.y);
  const int begin = groups.begin[e], end = groups.end[e];
  Matrix wide = p.wide, thin = p.thin;
  wide.rows = thin.rows = end;
  const uint32_t tiles = ptx::shared_address(shared);
  const int m = static_cast<int>(threadIdx.x) / kWarp * 16;
  float c[kColumns / 8][4] = {};
  pipeline((end - begin + kStep - 1) / kStep,
           [&](int stage, int step) {
             const uint32_t left = tiles + stage * T::kStageBytes, right = left + T::Left::kBytes;
             T::Left::template load<T::kThreads>(left, wide, begin + step * kStep, first);
             T::Right::template load<T::kThreads>(right, thin, begin + step * kStep, 0);
           },
           [&](int stage, int) {
             const uint32_t left = tiles + stage * T::kStageBytes, right = left + T::Left::kBytes;
#pragma unroll
             for (int k = 0; k < kStep; k += 16) {
               uint32_t a[4];
               load_left<typename T::Left, true>(a, left, m, k);
               multiply_right<typename T::Right, false>(c, a, right, k);
             }
           });
  const int group = static_cast<int>(threadIdx.x) % kWarp / 4, quad = static_cast<int>(threadIdx.x) % 4;
  S* const dw = static_cast<S*>(p.dw) + int64_t{e} * p.wide.columns * p.thin.columns;
#pragma unroll
  for (int j = 0; j < kColumns / 8; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = first + m + group + i / 2 * 8, column = j * 8 + 2 * quad + i % 2;
      if (column >= p.thin.columns) continue;
      S* to = dw + (p.transposed ? int64_t{column} * p.wide.columns + row : int64_t{row} * p.thin.columns + column);
      store(to, p.accumulate ? to_float(*to) + c[j][i] : c[j][i]);
    }
}

bool is_thin(int64_t side) {
  return side > 0 && side <= kThinSide && side % kVectorElements == 0;
}
bool is_wide(int64_t side) {
  return side > 0 && side % kStep == 0;
}
bool are_of(DType dtype, std::initializer_list<Tensor> tensors) {
  return std::ranges::all_of(tensors, [&](const Tensor& tensor) {
    return tensor.dtype == dtype && reinterpret_cast<uintptr_t>(tensor.data) % 16 == 0;
  });
}

Groups groups_of(const RowGroups& rows) {
  Groups groups = {static_cast<int>(rows.groups), {}, {}};
  for (int64_t e = 0; e < rows.groups; ++e) {
    if (rows.count[e] == 0) continue;
    groups.begin[e] = rows.begin[e];
    groups.end[e] = static_cast<int>(rows.begin[e] + align_rows(rows.count[e]));
  }
  return groups;
}
Groups one_group(int64_t rows) {
  return {1, {0}, {static_cast<int>(rows)}};
}

Matrix matrix_of(const Tensor& tensor) {
  return {elements<bf16>(tensor), static_cast<int>(tensor.rows()), static_cast<int>(tensor.shape[-1]),
          tensor.shape[-1]};
}

// Calls what() with the smallest of 16, 32, 48 and 64 that `side` fits into.
template <class What>
void with_side(int64_t side, const What& what) {
  if (side <= 16)
    what(std::integral_constant<int, 16>());
  else if (side <= 32)
    what(std::integral_constant<int, 32>());
  else if (side <= 48)
    what(std::integral_constant<int, 48>());
  else
    what(std::integral_constant<int, 64>());
}

template <class Kernel, class Args>
void launch(Ctx& ctx, Kernel* kernel, dim3 blocks, int threads, int shared_bytes, const Args& args,
            const Groups& groups) {
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes), "thin_gemm");
  kernel<<<blocks, threads, shared_bytes, ctx.gpu->stream()>>>(args, groups);
  check_cuda(cudaGetLastError(), "thin_gemm");
}

unsigned count(int64_t all, int64_t of_a_block) {
  return static_cast<unsigned>(ceil_div(all, of_a_block));
}

// As many blocks as this leave no multiprocessor idle for long.
constexpr int64_t kManyBlocks = 120;

template <bool kTransposed>
void narrow_result(Ctx& ctx, const Product& p, const Groups& groups) {
  const int64_t rows = p.x.rows;
  with_side(p.n, [&](auto side) {
    constexpr int kColumns = decltype(side)::value;
    const auto run = [&](auto block) {
      constexpr int kRows = decltype(block)::value;
      using T = NarrowResult<kRows, kColumns, kTransposed>;
      launch(ctx, narrow_result_kernel<kRows, kColumns, kTransposed>, count(rows, kRows), T::kThreads, T::kSharedBytes,
             p, groups);
    };
    if constexpr (kColumns <= 32)  // more would not fit into the shared memory of an sm_86
      if (rows / 128 >= kManyBlocks) return run(std::integral_constant<int, 128>());
    run(std::integral_constant<int, 64>());
  });
}

template <bool kTransposed>
void short_sum(Ctx& ctx, const Product& p, const Groups& groups) {
  with_side(p.k, [&](auto side) {
    using T = ShortSum<decltype(side)::value, kTransposed>;
    launch(ctx, short_sum_kernel<decltype(side)::value, kTransposed>,
           {count(p.n, T::kColumns), count(p.x.rows, T::kRows)}, T::kThreads, T::kSharedBytes, p, groups);
  });
}

bool product(Ctx& ctx, const GroupedGemmArgs& args, const Groups& groups) {
  const int64_t n = args.y.shape[1], k = args.x.shape[1];
  const bool narrow = is_thin(n) && is_wide(k), short_sum_of = is_thin(k) && is_wide(n);
  if ((!narrow && !short_sum_of) || !are_of(DType::kBF16, {args.x, args.w, args.y})) return false;
  const Product p = {.x = matrix_of(args.x),
                     .w = elements<bf16>(args.w),
                     .y = args.y.data,
                     .elements = n * k,
                     .n = static_cast<int>(n),
                     .k = static_cast<int>(k),
                     .accumulate = args.accumulate};
  if (p.x.rows == 0) return true;
  if (narrow)
    args.trans_w ? narrow_result<true>(ctx, p, groups) : narrow_result<false>(ctx, p, groups);
  else
    args.trans_w ? short_sum<true>(ctx, p, groups) : short_sum<false>(ctx, p, groups);
  return true;
}

bool gradient(Ctx& ctx, const GroupedWgradArgs& args, const Groups& groups) {
  const int64_t n = args.dy.shape[1], k = args.x.shape[1];
  const bool by_thin = is_thin(n) && is_wide(k);  // dy is the thin side
  if (!by_thin && !(is_thin(k) && is_wide(n))) return false;
  if (!are_of(DType::kBF16, {args.dy, args.x}) || !are_of(args.dw.dtype, {args.dw})) return false;
  const Gradient p = {.wide = matrix_of(by_thin ? args.x : args.dy),
                      .thin = matrix_of(by_thin ? args.dy : args.x),
                      .dw = args.dw.data,
                      .transposed = by_thin,
                      .accumulate = args.accumulate};
  const dim3 blocks = {count(p.wide.columns, 64), static_cast<unsigned>(groups.size)};
  with_side(p.thin.columns, [&](auto side) {
    constexpr int kColumns = decltype(side)::value;
    using T = ThinGradient<kColumns>;
    if (args.dw.dtype == DType::kF32)
      launch(ctx, thin_gradient_kernel<kColumns, float>, blocks, T::kThreads, T::kSharedBytes, p, groups);
    else
      launch(ctx, thin_gradient_kernel<kColumns, bf16>, blocks, T::kThreads, T::kSharedBytes, p, groups);
  });
  return true;
}

bool fits(int64_t rows) {
  return rows <= (1 << 22);  // of blocks of 64, as a grid's second dimension takes; and an int times 64 columns
}

}  // namespace

bool thin_gemm(Ctx& ctx, const GemmArgs& args) {
  const RowGroups none = {};
  if (args.trans_a) {
    if (args.trans_b || !fits(args.a.rows())) return false;
    return gradient(ctx, {.dy = args.a, .x = args.b, .dw = args.c, .groups = none, .accumulate = args.accumulate},
                    one_group(args.a.rows()));
  }
  if (!fits(args.a.rows())) return false;
  return product(
      ctx,
      {.x = args.a, .w = args.b, .y = args.c, .groups = none, .trans_w = args.trans_b, .accumulate = args.accumulate},
      one_group(args.a.rows()));
}

bool thin_grouped_gemm(Ctx& ctx, const GroupedGemmArgs& args) {
  if (args.groups.groups > kThinGroups || !fits(args.x.rows())) return false;
  return product(ctx, args, groups_of(args.groups));
}

bool thin_grouped_wgrad(Ctx& ctx, const GroupedWgradArgs& args) {
  if (args.groups.groups > kThinGroups || !fits(args.x.rows())) return false;
  return gradient(ctx, args, groups_of(args.groups));
}

}  // namespace mixtune::cuda
