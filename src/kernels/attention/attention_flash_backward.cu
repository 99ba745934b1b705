// Attention backward in two passes over the same products, so that nothing is added by two blocks: a block of queries
// goes through the keys they see for dQ, and a block of keys through the queries that see them, of every query head of
// their key-value head, for dK and dV. With P the probabilities and D = rowsum(dO * O):
//   dS = P * (dO V^T - D),  dQ = scale dS K,  dK = scale dS^T Q,  dV = P^T dO
#include "kernels/attention/attention_mma.cuh"
#include "kernels/attention/attention_simt.cuh"

namespace mixtune::cuda {

namespace {

// 16 lanes compute the statistics of each query of each head.

constexpr int kStatisticsThreads = 256, kLanesPerRow = 16;

template <class S>
struct RowStatisticsArgs {
  FlashShape shape;
  float lse_unit;
  const float* lse;
  const S *out, *dout;
  RowStatistics* statistics;
};

template <class S, int Vector>
__device__ float dot_part(const S* a, const S* b, int columns, int lane) {
  float sum = 0;
  for (int c = lane * Vector; c < columns; c += kLanesPerRow * Vector) {
    if constexpr (Vector == 1) {
      sum = fmaf(to_float(a[c]), to_float(b[c]), sum);
    } else {
      float x[Vector], y[Vector];
      load_vector(a + c, x);
      load_vector(b + c, y);
#pragma unroll
      for (int i = 0; i < Vector; ++i) sum = fmaf(x[i], y[i], sum);
    }
  }
  return sum;
}

template <class S, int Vector>
__global__ void __launch_bounds__(kStatisticsThreads) row_statistics_kernel(const RowStatisticsArgs<S> args) {
  const FlashShape& shape = args.shape;
  const int lane = threadIdx.x % kLanesPerRow;
  const int64_t i = (int64_t{blockIdx.x} * kStatisticsThreads + threadIdx.x) / kLanesPerRow;  // row by row
  const int32_t row = static_cast<int32_t>(i / shape.q_heads), head = static_cast<int32_t>(i % shape.q_heads);
  const bool live = row < shape.live_rows;
  float delta = 0;
  if (live)
    delta = dot_part<S, Vector>(args.out + i * shape.head_dim, args.dout + i * shape.head_dim, shape.head_dim, lane);
#pragma unroll
  for (int step = kLanesPerRow / 2; step > 0; step /= 2) delta += __shfl_xor_sync(~0u, delta, step);
  if (lane == 0 && row < shape.padded_rows)
    args.statistics[int64_t{head} * shape.padded_rows + row] = {live ? args.lse[i] * args.lse_unit : INFINITY, delta};
}

template <class S>
Tensor row_statistics(Ctx& ctx, const FlashShape& shape, const AttentionBackward& args, float lse_unit) {
  const Tensor statistics =
      ctx.stack.push("attention row statistics", {shape.q_heads, shape.padded_rows, 2}, DType::kF32);
  const RowStatisticsArgs<S> kernel_args = {shape,
                                            lse_unit,
                                            elements<float>(args.lse),
                                            elements<S>(args.out),
                                            elements<S>(args.dout),
                                            static_cast<RowStatistics*>(statistics.data)};
  const bool vectors = vectors_fit<S>(args.out.data, shape.head_dim) && vectors_fit<S>(args.dout.data, shape.head_dim);
  const auto kernel = vectors ? row_statistics_kernel<S, kVector<S>> : row_statistics_kernel<S, 1>;
  const int64_t threads = int64_t{shape.padded_rows} * shape.q_heads * kLanesPerRow;
  kernel<<<static_cast<unsigned>(ceil_div(threads, kStatisticsThreads)), kStatisticsThreads, 0, ctx.gpu->stream()>>>(
      kernel_args);
  check_cuda(cudaGetLastError(), "row_statistics_kernel");
  return statistics;
}

// dQ on tensor cores: a block has 128 queries, and takes 32 keys at a time in two stages.

namespace query_pass {

constexpr int kQueryTile = 128, kKeyTile = 32;
constexpr int kM = kQueryTile / kMmaWarps / 16, kN = kKeyTile / 8;

template <int D>
constexpr int kSharedBytes = 2 * kTileBytes<kQueryTile, D> + 4 * kTileBytes<kKeyTile, D>;

template <int D>
__global__ void __launch_bounds__(kMmaThreads, 2) flash_backward_queries_mma_kernel(const FlashBackward<bf16> args) {
  extern __shared__ __align__(1024) unsigned char shared[];
  const FlashShape& shape = args.shape;
  const int lane = threadIdx.x % kWarp, head = blockIdx.y, kv_head = head / shape.group();
  const int warp_row = static_cast<int>(threadIdx.x) / kWarp * 16 * kM;
  const int32_t q0 = static_cast<int32_t>(gridDim.x - 1 - blockIdx.x) * kQueryTile;  // those that see most go first
  const KeysSeen sees = {shape.spans};
  const Interval keys = seen_by_tile<kKeyTile>(shape, sees, q0, kQueryTile);
  const WarpView view(sees, q0 + warp_row, 16 * kM);

  const uint32_t q_tile = ptx::shared_address(shared), dout_tile = q_tile + kTileBytes<kQueryTile, D>;
  const uint32_t k_tiles = dout_tile + kTileBytes<kQueryTile, D>, v_tiles = k_tiles + 2 * kTileBytes<kKeyTile, D>;
  const TileCopy<D> copy(key_rows(shape, args.qkv, kv_head), shape);
  const auto stage = [](int32_t k0) {
    return k0 / kKeyTile % 2 * kTileBytes<kKeyTile, D>;
  };
  const auto copy_keys = [&](int32_t k0) {
    copy.template start<kKeyTile>(k_tiles + stage(k0), k0);
    copy.template start<kKeyTile>(v_tiles + stage(k0), k0, shape.kv_heads * shape.head_dim);
    ptx::commit_copies();
  };

  const float scale_log2 = shape.scale * kLog2e;
  const RowStatistics* statistics = args.statistics + int64_t{head} * shape.padded_rows + view.row0 + lane / 4;
  float lse[kM][2], delta[kM][2], acc[kM][D / 8][4];
  clear(acc);
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      lse[m][half] = statistics[16 * m + 8 * half].lse;
      delta[m][half] = statistics[16 * m + 8 * half].delta;
    }
  if (keys.begin < keys.end) {
    TileCopy<D>(query_rows(shape, args.qkv, head), shape).template start<kQueryTile>(q_tile, q0);
    TileCopy<D>(out_rows(shape, args.dout, head), shape).template start<kQueryTile>(dout_tile, q0);
    copy_keys(keys.begin);
  }
  for (int32_t k0 = keys.begin; k0 < keys.end; k0 += kKeyTile) {
    ptx::wait_copies<0>();
    __syncthreads();  // this stage is there, and nobody reads the other one
    if (k0 + kKeyTile < keys.end) copy_keys(k0 + kKeyTile);
    if (!view.sees(k0, kKeyTile)) continue;
    float s[kM][kN][4], dp[kM][kN][4];
    multiply_rows<kM, kN, D>(s, lane_by_rows<D>(q_tile + warp_row * kTileRowBytes<D>),
                             lane_by_columns<D>(k_tiles + stage(k0)));
    mask_scores(s, view, sees, k0);
    multiply_rows<kM, kN, D>(dp, lane_by_rows<D>(dout_tile + warp_row * kTileRowBytes<D>),
                             lane_by_columns<D>(v_tiles + stage(k0)));
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int n = 0; n < kN; ++n)
#pragma unroll
        for (int c = 0; c < 4; ++c)
          dp[m][n][c] = ptx::exp2_fast(fmaf(s[m][n][c], scale_log2, -lse[m][c / 2])) * (dp[m][n][c] - delta[m][c / 2]);
    uint32_t ds[kM][kN / 2][4];
    pack_rows(ds, dp);
    multiply_columns<kM, kN / 2, D>(acc, ds, lane_by_rows<D>(k_tiles + stage(k0)));
  }
  store_rows<kM, D>(shared + warp_row * kTileRowBytes<D>, acc, shape.scale, query_rows(shape, args.dqkv, head),
                    view.row0, shape);
}

}  // namespace query_pass

// dK and dV on tensor cores: a block has 64 keys, and takes 64 queries of one head at a time in two stages. Scores are
// transposed: rows are keys, so that both results are products of registers with the queries' tiles.

namespace key_pass {

constexpr int kKeyTile = 64, kQueryTile = 64;
constexpr int kM = kKeyTile / kMmaWarps / 16, kN = kQueryTile / 8;
static_assert(kKeyTile % kQueryTile == 0);  // queries that see a tile start with one of their own tiles

// A tile of queries: Q, dO, and the queries' statistics.
template <int D>
constexpr int kStatisticsOffset = 2 * kTileBytes<kQueryTile, D>;
template <int D>
constexpr int kStageBytes = kStatisticsOffset<D> + kQueryTile* static_cast<int>(sizeof(RowStatistics));
template <int D>
constexpr int kSharedBytes = 2 * kTileBytes<kKeyTile, D> + 2 * kStageBytes<D>;

// Turns, in place, scores into P^T and dP^T into dS^T; columns are the queries of `statistics`.
__device__ void probabilities_and_gradients(float (&s)[kM][kN][4], float (&dp)[kM][kN][4], float scale_log2,
                                            const RowStatistics* statistics) {
  const int quad = threadIdx.x % 4;
#pragma unroll
  for (int n = 0; n < kN; ++n) {
    const float4 two = *reinterpret_cast<const float4*>(statistics + 8 * n + 2 * quad);
    const RowStatistics query[2] = {{two.x, two.y}, {two.z, two.w}};
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        s[m][n][c] = ptx::exp2_fast(fmaf(s[m][n][c], scale_log2, -query[c % 2].lse));
        dp[m][n][c] = s[m][n][c] * (dp[m][n][c] - query[c % 2].delta);
      }
  }
}

template <int D>
__global__ void __launch_bounds__(kMmaThreads, 2) flash_backward_keys_mma_kernel(const FlashBackward<bf16> args) {
  extern __shared__ __align__(1024) unsigned char shared[];
  const FlashShape& shape = args.shape;
  const int kv_head = blockIdx.y, last_head = (kv_head + 1) * shape.group() - 1;
  const int warp_row = static_cast<int>(threadIdx.x) / kWarp * 16 * kM;
  const int32_t k0 = static_cast<int32_t>(blockIdx.x) * kKeyTile;  // keys that the most queries see go first
  const QueriesSeeing sees = {shape.spans};
  const Interval queries = seen_by_tile<kQueryTile>(shape, sees, k0, kKeyTile);
  const WarpView view(sees, k0 + warp_row, 16 * kM);

  unsigned char* const stages = shared + 2 * kTileBytes<kKeyTile, D>;
  const uint32_t k_tile = ptx::shared_address(shared), v_tile = k_tile + kTileBytes<kKeyTile, D>;
  const auto copy_queries = [&](int head, int32_t q0, unsigned char* stage) {
    const uint32_t to = ptx::shared_address(stage);
    TileCopy<D>(query_rows(shape, args.qkv, head), shape).template start<kQueryTile>(to, q0);
    TileCopy<D>(out_rows(shape, args.dout, head), shape).template start<kQueryTile>(to + kTileBytes<kQueryTile, D>, q0);
    constexpr int kRowsPerChunk = 16 / sizeof(RowStatistics);
    if (const int row = static_cast<int>(threadIdx.x) * kRowsPerChunk; row < kQueryTile)
      ptx::copy_async(to + kStatisticsOffset<D> + row * static_cast<int>(sizeof(RowStatistics)),
                      args.statistics + int64_t{head} * shape.padded_rows + q0 + row);
    ptx::commit_copies();
  };

  const float scale_log2 = shape.scale * kLog2e;
  float dk[kM][D / 8][4], dv[kM][D / 8][4];
  clear(dk);
  clear(dv);
  int head = kv_head * shape.group(), stage = 0;
  int32_t q0 = queries.begin;
  if (queries.begin < queries.end) {
    TileCopy<D>(key_rows(shape, args.qkv, kv_head), shape).template start<kKeyTile>(k_tile, k0);
    TileCopy<D>(value_rows(shape, args.qkv, kv_head), shape).template start<kKeyTile>(v_tile, k0);
    copy_queries(head, q0, stages);
  } else {
    head = last_head + 1;
  }
  while (head <= last_head) {
    ptx::wait_copies<0>();
    __syncthreads();  // this stage is there, and nobody reads the other one
    const unsigned char* const tiles = stages + stage * kStageBytes<D>;
    const int32_t this_q0 = q0;
    q0 += kQueryTile;
    if (q0 >= queries.end) {
      q0 = queries.begin;
      ++head;
    }
    stage ^= 1;
    if (head <= last_head) copy_queries(head, q0, stages + stage * kStageBytes<D>);
    if (!view.sees(this_q0, kQueryTile)) continue;

    const uint32_t q_tile = ptx::shared_address(tiles), dout_tile = q_tile + kTileBytes<kQueryTile, D>;
    float s[kM][kN][4], dp[kM][kN][4];
    multiply_rows<kM, kN, D>(s, lane_by_rows<D>(k_tile + warp_row * kTileRowBytes<D>), lane_by_columns<D>(q_tile));
    mask_scores(s, view, sees, this_q0);
    multiply_rows<kM, kN, D>(dp, lane_by_rows<D>(v_tile + warp_row * kTileRowBytes<D>), lane_by_columns<D>(dout_tile));
    probabilities_and_gradients(s, dp, scale_log2,
                                reinterpret_cast<const RowStatistics*>(tiles + kStatisticsOffset<D>));
    uint32_t p[kM][kN / 2][4], ds[kM][kN / 2][4];
    pack_rows(p, s);
    pack_rows(ds, dp);
    multiply_columns<kM, kN / 2, D>(dv, p, lane_by_rows<D>(dout_tile));
    multiply_columns<kM, kN / 2, D>(dk, ds, lane_by_rows<D>(q_tile));
  }
  // A warp's rows of the K and V tiles are read by that warp alone.
  unsigned char* const staging = shared + warp_row * kTileRowBytes<D>;
  store_rows<kM, D>(staging, dk, shape.scale, key_rows(shape, args.dqkv, kv_head), view.row0, shape);
  store_rows<kM, D>(staging + kTileBytes<kKeyTile, D>, dv, 1, value_rows(shape, args.dqkv, kv_head), view.row0, shape);
}

}  // namespace key_pass

// Both passes on CUDA cores: a block has 64 rows, and takes 64 of the other side at a time.

// Turns, in place, a score into P and dP into dS. Both are zero where the row does not see the column.
__device__ inline void simt_gradient(float& s, float& dp, bool seen, float scale, const RowStatistics& query) {
  s = seen ? expf(s * scale - query.lse) : 0.0f;
  dp = s * (dp - query.delta) * scale;
}

template <class S, int D>
__global__ void __launch_bounds__(kSimtThreads) flash_backward_queries_simt_kernel(const FlashBackward<S> args) {
  __shared__ SimtShared shared;
  const FlashShape& shape = args.shape;
  const SimtThread thread;
  const int head = blockIdx.y, kv_head = head / shape.group();
  const int32_t q0 = static_cast<int32_t>(gridDim.x - 1 - blockIdx.x) * kSimtTile;
  const KeysSeen sees = {shape.spans};
  const Interval keys = seen_by_tile<kSimtTile>(shape, sees, q0, kSimtTile);
  const auto q_rows = query_rows(shape, args.qkv, head);
  const auto k_rows = key_rows(shape, args.qkv, kv_head), v_rows = value_rows(shape, args.qkv, kv_head);
  const auto dout_rows = out_rows(shape, args.dout, head);
  const RowStatistics* statistics = args.statistics + int64_t{head} * shape.padded_rows;

  SimtResult<D> acc = {};
  for (int32_t k0 = keys.begin; k0 < keys.end; k0 += kSimtTile) {
    SimtScores s, dp;
    simt_multiply_rows<S>(s, shared, q_rows, q0, k_rows, k0, shape);
    simt_multiply_rows<S>(dp, shared, dout_rows, q0, v_rows, k0, shape);
#pragma unroll
    for (int r = 0; r < kSimtMicro; ++r) {
      const int32_t query = q0 + thread.y + kSimtSide * r;
      const Interval seen = sees(query);
#pragma unroll
      for (int c = 0; c < kSimtMicro; ++c)
        simt_gradient(s[r][c], dp[r][c], seen.contains(k0 + thread.x + kSimtSide * c), shape.scale, statistics[query]);
    }
    simt_multiply_columns<S, D>(acc, shared, dp, k_rows, k0, shape);
  }
  simt_store<S, D>(acc, query_rows(shape, args.dqkv, head), q0, shape);
}

template <class S, int D>
__global__ void __launch_bounds__(kSimtThreads) flash_backward_keys_simt_kernel(const FlashBackward<S> args) {
  __shared__ SimtShared shared;
  const FlashShape& shape = args.shape;
  const SimtThread thread;
  const int kv_head = blockIdx.y;
  const int32_t k0 = static_cast<int32_t>(blockIdx.x) * kSimtTile;
  const QueriesSeeing sees = {shape.spans};
  const Interval queries = seen_by_tile<kSimtTile>(shape, sees, k0, kSimtTile);
  const auto k_rows = key_rows(shape, args.qkv, kv_head), v_rows = value_rows(shape, args.qkv, kv_head);

  SimtResult<D> dk = {}, dv = {};
  for (int head = kv_head * shape.group(); head < (kv_head + 1) * shape.group(); ++head) {
    const auto q_rows = query_rows(shape, args.qkv, head), dout_rows = out_rows(shape, args.dout, head);
    const RowStatistics* statistics = args.statistics + int64_t{head} * shape.padded_rows;
    for (int32_t q0 = queries.begin; q0 < queries.end; q0 += kSimtTile) {
      SimtScores s, dp;
      simt_multiply_rows<S>(s, shared, k_rows, k0, q_rows, q0, shape);
      simt_multiply_rows<S>(dp, shared, v_rows, k0, dout_rows, q0, shape);
#pragma unroll
      for (int r = 0; r < kSimtMicro; ++r) {
        const Interval seen = sees(k0 + thread.y + kSimtSide * r);
#pragma unroll
        for (int c = 0; c < kSimtMicro; ++c) {
          const int32_t query = q0 + thread.x + kSimtSide * c;
          simt_gradient(s[r][c], dp[r][c], seen.contains(query), shape.scale, statistics[query]);
        }
      }
      simt_multiply_columns<S, D>(dv, shared, s, dout_rows, q0, shape);
      simt_multiply_columns<S, D>(dk, shared, dp, q_rows, q0, shape);
    }
  }
  simt_store<S, D>(dk, key_rows(shape, args.dqkv, kv_head), k0, shape);
  simt_store<S, D>(dv, value_rows(shape, args.dqkv, kv_head), k0, shape);
}

template <int D>
void launch_mma(Ctx& ctx, const FlashBackward<bf16>& args) {
  using namespace query_pass;
  launch_flash(ctx, "flash_backward_queries_mma_kernel", flash_backward_queries_mma_kernel<D>, args,
               query_pass::kQueryTile, args.shape.q_heads, kMmaThreads, query_pass::kSharedBytes<D>);
  launch_flash(ctx, "flash_backward_keys_mma_kernel", key_pass::flash_backward_keys_mma_kernel<D>, args,
               key_pass::kKeyTile, args.shape.kv_heads, kMmaThreads, key_pass::kSharedBytes<D>);
}
template <class S, int D>
void launch_simt(Ctx& ctx, const FlashBackward<S>& args) {
  launch_flash(ctx, "flash_backward_queries_simt_kernel", flash_backward_queries_simt_kernel<S, D>, args, kSimtTile,
               args.shape.q_heads, kSimtThreads, 0);
  launch_flash(ctx, "flash_backward_keys_simt_kernel", flash_backward_keys_simt_kernel<S, D>, args, kSimtTile,
               args.shape.kv_heads, kSimtThreads, 0);
}

}  // namespace

void flash_attention_backward(Ctx& ctx, const AttentionShape& shape, const AttentionBackward& args) {
  if (args.qkv.rows() == 0) return;
  const Stack::Frame frame(ctx.stack);
  const FlashShape flash = flash_shape(ctx, shape, args.qkv.rows());
  const bool tensor_cores = flash_tensor_cores(shape, {args.qkv, args.dout, args.dqkv});
  on_dtype(args.qkv.dtype, [&]<class S>(S) {
    const Tensor statistics = row_statistics<S>(ctx, flash, args, tensor_cores ? kLog2e : 1.0f);
    const FlashBackward<S> kernel_args = {flash, elements<S>(args.qkv), elements<S>(args.dout), elements<S>(args.dqkv),
                                          static_cast<const RowStatistics*>(statistics.data)};
    if constexpr (std::is_same_v<S, bf16>) {
      if (tensor_cores)
        return shape.head_dim <= 64 ? launch_mma<64>(ctx, kernel_args) : launch_mma<128>(ctx, kernel_args);
    }
    shape.head_dim <= 128 ? launch_simt<S, 128>(ctx, kernel_args) : launch_simt<S, 256>(ctx, kernel_args);
  });
}

}  // namespace mixtune::cuda
