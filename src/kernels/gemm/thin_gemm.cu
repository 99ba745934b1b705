// CUDA kernels of thin_gemm.h. A block loads tiles by cp.async, some stages ahead, and multiplies with mma.m16n8k16.
#include "kernels/mma_tiles.cuh"

namespace mixtune::cuda {

namespace {

struct Product {
  Matrix x;
  const bf16* w;
  bf16* y;  // [R, n]
  int n, k;
  bool accumulate;

  // Of group e: [n, k] where it is transposed, else [k, n].
  template <bool kTransposed>
  __device__ Matrix weight(int e) const {
    const int rows = kTransposed ? n : k, columns = kTransposed ? k : n;
    return {w + int64_t{e} * n * k, rows, columns};
  }
};

// y [R, n] = x [R, K] W_e, n <= kColumns: a block has 64 rows, a warp 16 of them and half of each step along K.
template <int kColumns, bool kTransposed>
struct NarrowResult {
  static constexpr int kRows = 64, kStep = 128, kStages = 3, kThreads = 256;
  using Left = Tile<kRows, kStep>;
  using Right = Tile<kTransposed ? kColumns : kStep, kTransposed ? kStep : kColumns>;
  static constexpr int kStageBytes = Left::kBytes + Right::kBytes, kSharedBytes = kStages * kStageBytes;
};

template <int kColumns, bool kTransposed>
__global__ void __launch_bounds__(256)
    narrow_result_kernel(const __grid_constant__ Product p, const __grid_constant__ ThinGroups groups) {
  using T = NarrowResult<kColumns, kTransposed>;
  constexpr int kTiles = kColumns / 8;
  extern __shared__ uint4 shared[];
  const int first = static_cast<int>(blockIdx.x) * T::kRows, e = groups.of_row(first);
  if (e == groups.size) return;
  const Matrix w = p.weight<kTransposed>(e);
  const uint32_t tiles = ptx::shared_address(shared);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int m = warp % 4 * 16, half = warp / 4 * (T::kStep / 2);
  float c[kTiles][4] = {};
  pipeline<T::kStages>(
      p.k / T::kStep,
      [&](int stage, int step) {
        const uint32_t left = tiles + stage * T::kStageBytes, right = left + T::Left::kBytes;
        const int k = step * T::kStep;
        T::Left::template load<T::kThreads>(left, p.x, first, k);
        T::Right::template load<T::kThreads>(right, w, kTransposed ? 0 : k, kTransposed ? k : 0);
      },
      [&](int stage, int) {
        const uint32_t left = tiles + stage * T::kStageBytes, right = left + T::Left::kBytes;
#pragma unroll
        for (int k = 0; k < T::kStep / 2; k += 16) {
          uint32_t a[4];
          load_left<typename T::Left, false>(a, left, m, half + k);
          multiply_right<typename T::Right, kTransposed>(c, a, right, half + k);
        }
      });
  // The second halves are added to the first.
  __syncthreads();
  float4* const sums = reinterpret_cast<float4*>(shared) + warp % 4 * kTiles * kWarp + lane;
  if (half > 0)
#pragma unroll
    for (int j = 0; j < kTiles; ++j) sums[j * kWarp] = make_float4(c[j][0], c[j][1], c[j][2], c[j][3]);
  __syncthreads();
  if (half > 0) return;
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
    const float4 other = sums[j * kWarp];
    const float sum[4] = {c[j][0] + other.x, c[j][1] + other.y, c[j][2] + other.z, c[j][3] + other.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = first + m + lane / 4 + i / 2 * 8, column = j * 8 + lane % 4 * 2 + i % 2;
      if (column >= p.n) continue;
      bf16* to = p.y + int64_t{row} * p.n + column;
      *to = __float2bfloat16_rn(p.accumulate ? to_float(*to) + sum[i] : sum[i]);
    }
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
__global__ void __launch_bounds__(256, kInner <= 32 ? 3 : 2)
    short_sum_kernel(const __grid_constant__ Product p, const __grid_constant__ ThinGroups groups) {
  using T = ShortSum<kInner, kTransposed>;
  constexpr int kVectors = T::kColumns / kVectorElements, kTurns = 16 * kVectors / kWarp;
  extern __shared__ uint4 shared[];
  const int first = static_cast<int>(blockIdx.y) * T::kRows, n = static_cast<int>(blockIdx.x) * T::kColumns;
  const int e = groups.of_row(first);
  if (e == groups.size) return;
  const Matrix w = p.weight<kTransposed>(e);
  const uint32_t left = ptx::shared_address(shared), right = left + T::Left::kBytes;
  T::Left::template load<T::kThreads>(left, p.x, first, 0);
  T::Right::template load<T::kThreads>(right, w, kTransposed ? n : 0, kTransposed ? 0 : n);
  ptx::commit_copies();

  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  // A turn is 4 rows: a lane has 8 columns of one.
  const int row = first + warp * 16 + lane / kVectors, column = n + lane % kVectors * kVectorElements;
  bf16* const y = p.y + int64_t{row} * p.n + column;
  uint4 before[kTurns] = {};
  if (p.accumulate)
#pragma unroll
    for (int i = 0; i < kTurns; ++i) before[i] = *reinterpret_cast<const uint4*>(y + int64_t{4 * i} * p.n);

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
    const float* from = result + (lane / kVectors + 4 * i) * T::kResultRow + lane % kVectors * kVectorElements;
    float sum[kVectorElements];
#pragma unroll
    for (int j = 0; j < kVectorElements; ++j) sum[j] = to_float(reinterpret_cast<const bf16*>(&before[i])[j]) + from[j];
    store_vector(y + int64_t{4 * i} * p.n, sum);
  }
}

// The gradient of a wide side (64 columns of it a block, 16 a warp) and a thin one, summed over the group's rows:
// wide^T thin, stored so [N, k], or as its transpose [k, N].
template <int kColumns>
struct ThinGradient {
  static constexpr int kStep = 64, kStages = 4, kThreads = 128;
  using Left = Tile<kStep, 64>;
  using Right = Tile<kStep, kColumns>;
  static constexpr int kStageBytes = Left::kBytes + Right::kBytes, kSharedBytes = kStages * kStageBytes;
};

struct Gradient {
  Matrix wide, thin;
  void* dw;
  bool transposed, accumulate;
};

template <int kColumns, class S>
__global__ void __launch_bounds__(128)
    thin_gradient_kernel(const __grid_constant__ Gradient p, const __grid_constant__ ThinGroups groups) {
  using T = ThinGradient<kColumns>;
  extern __shared__ uint4 shared[];
  const int first = static_cast<int>(blockIdx.x) * 64, e = static_cast<int>(blockIdx.y);
  const int begin = groups.begin[e];
  const uint32_t tiles = ptx::shared_address(shared);
  const int m = static_cast<int>(threadIdx.x) / kWarp * 16;
  float c[kColumns / 8][4] = {};
  pipeline<T::kStages>((groups.end[e] - begin) / T::kStep,
                       [&](int stage, int step) {
                         const uint32_t left = tiles + stage * T::kStageBytes, right = left + T::Left::kBytes;
                         T::Left::template load<T::kThreads>(left, p.wide, begin + step * T::kStep, first);
                         T::Right::template load<T::kThreads>(right, p.thin, begin + step * T::kStep, 0);
                       },
                       [&](int stage, int) {
                         const uint32_t left = tiles + stage * T::kStageBytes, right = left + T::Left::kBytes;
#pragma unroll
                         for (int k = 0; k < T::kStep; k += 16) {
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
      *to = from_float<S>(p.accumulate ? to_float(*to) + c[j][i] : c[j][i]);
    }
}

bool is_thin(int64_t side) {
  return side > 0 && side <= kThinSide && side % kVectorElements == 0;
}
bool is_wide(int64_t side, int64_t multiple, int64_t most) {
  return side > 0 && side % multiple == 0 && side <= most;
}
bool is_bf16(const Tensor& tensor) {
  return tensor.dtype == DType::kBF16 && reinterpret_cast<uintptr_t>(tensor.data) % 16 == 0;
}

// Calls what() with the smallest of 16, 32, 48 and 64 that `side` fits into.
template <class What>
bool with_side(int64_t side, const What& what) {
  if (side <= 16) return what(std::integral_constant<int, 16>());
  if (side <= 32) return what(std::integral_constant<int, 32>());
  if (side <= 48) return what(std::integral_constant<int, 48>());
  return what(std::integral_constant<int, 64>());
}

// T's kernel, where a block may have so much shared memory.
template <class T, class Kernel, class Args>
bool launch(Ctx& ctx, Kernel* kernel, dim3 blocks, const Args& args, const ThinGroups& groups) {
  if (!allow_shared_memory(ctx, kernel, T::kSharedBytes)) return false;
  kernel<<<blocks, T::kThreads, T::kSharedBytes, ctx.gpu->stream()>>>(args, groups);
  check_cuda(cudaGetLastError(), "thin_gemm");
  return true;
}

template <bool kTransposed>
bool narrow_result(Ctx& ctx, const Product& p, const ThinGroups& groups) {
  return with_side(p.n, [&](auto side) {
    using T = NarrowResult<decltype(side)::value, kTransposed>;
    return launch<T>(ctx, narrow_result_kernel<decltype(side)::value, kTransposed>,
                     static_cast<unsigned>(p.x.rows / T::kRows), p, groups);
  });
}

template <bool kTransposed>
bool short_sum(Ctx& ctx, const Product& p, const ThinGroups& groups) {
  return with_side(p.k, [&](auto side) {
    using T = ShortSum<decltype(side)::value, kTransposed>;
    const dim3 blocks(p.n / T::kColumns, p.x.rows / T::kRows);
    return launch<T>(ctx, short_sum_kernel<decltype(side)::value, kTransposed>, blocks, p, groups);
  });
}

bool is_taken(const RowGroups& groups, int64_t rows) {
  constexpr int64_t kMostRows = int64_t{65535} * kRowAlignment;  // as a grid's second dimension
  return groups.groups <= kThinGroups && rows > 0 && rows <= kMostRows;
}

}  // namespace

bool thin_grouped_gemm(Ctx& ctx, const GroupedGemmArgs& args) {
  const int64_t n = args.y.shape[1], k = args.x.shape[1];
  const bool narrow = is_thin(n) && is_wide(k, 128, kThinLongestSum);
  if (!narrow && !(is_thin(k) && is_wide(n, 64, kThinWidestResult))) return false;
  if (!is_taken(args.groups, args.x.rows()) || !is_bf16(args.x) || !is_bf16(args.w) || !is_bf16(args.y)) return false;
  const Product p = {.x = matrix_of(args.x),
                     .w = elements<bf16>(args.w),
                     .y = elements<bf16>(args.y),
                     .n = static_cast<int>(n),
                     .k = static_cast<int>(k),
                     .accumulate = args.accumulate};
  const ThinGroups groups = thin_groups(args.groups);
  if (narrow) return args.trans_w ? narrow_result<true>(ctx, p, groups) : narrow_result<false>(ctx, p, groups);
  return args.trans_w ? short_sum<true>(ctx, p, groups) : short_sum<false>(ctx, p, groups);
}

bool thin_grouped_wgrad(Ctx& ctx, const GroupedWgradArgs& args) {
  const int64_t n = args.dy.shape[1], k = args.x.shape[1];
  const bool by_thin = is_thin(n);  // dy is the thin side
  if (!(by_thin ? is_wide(k, 64, kThinWidestGradient) : is_thin(k) && is_wide(n, 64, kThinWidestGradient)))
    return false;
  if (!is_taken(args.groups, args.x.rows()) || !is_bf16(args.dy) || !is_bf16(args.x)) return false;
  const Gradient p = {.wide = matrix_of(by_thin ? args.x : args.dy),
                      .thin = matrix_of(by_thin ? args.dy : args.x),
                      .dw = args.dw.data,
                      .transposed = by_thin,
                      .accumulate = args.accumulate};
  const dim3 blocks(p.wide.columns / 64, static_cast<unsigned>(args.groups.groups));
  return with_side(p.thin.columns, [&](auto side) {
    constexpr int kColumns = decltype(side)::value;
    const ThinGroups groups = thin_groups(args.groups);
    if (args.dw.dtype == DType::kF32)
      return launch<ThinGradient<kColumns>>(ctx, thin_gradient_kernel<kColumns, float>, blocks, p, groups);
    return launch<ThinGradient<kColumns>>(ctx, thin_gradient_kernel<kColumns, bf16>, blocks, p, groups);
  });
}

}  // namespace mixtune::cuda
