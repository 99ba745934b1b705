// Attention forward with an online softmax: a block has a tile of queries of one head and goes through the keys they
// see, keeping each query's highest score and sum so far.
#include "kernels/attention/attention_mma.cuh"
#include "kernels/attention/attention_simt.cuh"

namespace mixtune::cuda {

namespace {

// The start of a query's highest score: below any score, and finite, so that a query that has seen nothing yet does not
// take infinity from infinity.
constexpr float kLowestScore = -1e30f;

constexpr int kSpanThreads = 256;

struct RowSpansArgs {
  const int32_t* doc_offsets;
  int32_t docs, live_rows, padded_rows;
  int64_t window;
  RowSpan* spans;
};

__global__ void __launch_bounds__(kSpanThreads) row_spans_kernel(const RowSpansArgs args) {
  const int32_t row = static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  if (row >= args.padded_rows) return;
  RowSpan span = {INT32_MAX, args.live_rows};
  if (row < args.live_rows) {
    int32_t doc = 0, above = args.docs;  // doc_offsets[doc] <= row < doc_offsets[above]
    while (above - doc > 1) {
      const int32_t middle = doc + (above - doc) / 2;
      (args.doc_offsets[middle] <= row ? doc : above) = middle;
    }
    const int32_t begin = args.doc_offsets[doc], end = args.doc_offsets[doc + 1];
    span = {begin, end};
    if (args.window > 0)
      span = {static_cast<int32_t>(max(int64_t{begin}, row - args.window + 1)),
              static_cast<int32_t>(min(int64_t{end}, row + args.window))};
  }
  args.spans[row] = span;
}

// Tensor cores: a block has 128 queries, and takes 64 keys at a time in two stages.

constexpr int kQueryTile = 128, kKeyTile = 64;
constexpr int kM = kQueryTile / kMmaWarps / 16, kN = kKeyTile / 8;

template <int D>
constexpr int kForwardSharedBytes = kTileBytes<kQueryTile, D> + 4 * kTileBytes<kKeyTile, D>;

template <int D8>
__device__ void scale_rows(float (&acc)[kM][D8][4], const float (&factor)[kM][2]) {
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int n = 0; n < D8; ++n)
#pragma unroll
      for (int c = 0; c < 4; ++c) acc[m][n][c] *= factor[m][c / 2];
}

// The state of a warp's queries: the highest score so far, in all four lanes of a row, and each lane's part of the sum
// of exp(score - highest).
struct OnlineSoftmax {
  float highest[kM][2], sum[kM][2];

  __device__ OnlineSoftmax() {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        highest[m][half] = kLowestScore;
        sum[m][half] = 0;
      }
  }

  // Turns scores into probabilities relative to the new highest score, to which the earlier sums are rescaled.
  template <int D>
  __device__ void update(float (&s)[kM][kN][4], float scale_log2, float (&acc)[kM][D / 8][4]) {
    float rescale[kM][2];
    bool grew = false;
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float top = highest[m][half];
#pragma unroll
        for (int n = 0; n < kN; ++n) top = fmaxf(top, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        rescale[m][half] = ptx::exp2_fast((highest[m][half] - top) * scale_log2);
        grew |= top != highest[m][half];
        highest[m][half] = top;
      }
    if (__any_sync(~0u, grew)) {
      scale_rows(acc, rescale);
#pragma unroll
      for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) sum[m][half] *= rescale[m][half];
    }
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float base = highest[m][half] * scale_log2;
#pragma unroll
        for (int n = 0; n < kN; ++n) {
          float &x = s[m][n][2 * half], &y = s[m][n][2 * half + 1];
          x = ptx::exp2_fast(fmaf(x, scale_log2, -base));
          y = ptx::exp2_fast(fmaf(y, scale_log2, -base));
          sum[m][half] += x + y;
        }
      }
  }

  __device__ void finish() {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float& x = sum[m][half];
        x += __shfl_xor_sync(~0u, x, 1);
        x += __shfl_xor_sync(~0u, x, 2);
      }
  }
};

template <int D>
__global__ void __launch_bounds__(kMmaThreads, 2) flash_forward_mma_kernel(const FlashForward<bf16> args) {
  extern __shared__ __align__(1024) unsigned char shared[];
  const FlashShape& shape = args.shape;
  const int lane = threadIdx.x % kWarp, head = blockIdx.y, kv_head = head / shape.group();
  const int warp_row = static_cast<int>(threadIdx.x) / kWarp * 16 * kM;
  const int32_t q0 = static_cast<int32_t>(gridDim.x - 1 - blockIdx.x) * kQueryTile;  // those that see most go first
  const KeysSeen sees = {shape.spans};
  const Interval keys = seen_by_tile<kKeyTile>(shape, sees, q0, kQueryTile);
  const WarpView view(sees, q0 + warp_row, 16 * kM);

  const uint32_t q_tile = ptx::shared_address(shared), k_tiles = q_tile + kTileBytes<kQueryTile, D>;
  const uint32_t v_tiles = k_tiles + 2 * kTileBytes<kKeyTile, D>;
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
  float acc[kM][D / 8][4];
  clear(acc);
  OnlineSoftmax softmax;
  if (keys.begin < keys.end) {
    TileCopy<D>(query_rows(shape, args.qkv, head), shape).template start<kQueryTile>(q_tile, q0);
    copy_keys(keys.begin);
  }
  for (int32_t k0 = keys.begin; k0 < keys.end; k0 += kKeyTile) {
    ptx::wait_copies<0>();
    __syncthreads();  // this stage is there, and nobody reads the other one
    if (k0 + kKeyTile < keys.end) copy_keys(k0 + kKeyTile);
    if (!view.sees(k0, kKeyTile)) continue;
    float s[kM][kN][4];
    multiply_rows<kM, kN, D>(s, lane_by_rows<D>(q_tile + warp_row * kTileRowBytes<D>),
                             lane_by_columns<D>(k_tiles + stage(k0)));
    mask_scores(s, view, sees, k0);
    softmax.update<D>(s, scale_log2, acc);
    uint32_t p[kM][kN / 2][4];
    pack_rows(p, s);
    multiply_columns<kM, kN / 2, D>(acc, p, lane_by_rows<D>(v_tiles + stage(k0)));
  }

  softmax.finish();
  float inverse[kM][2];
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = softmax.sum[m][half];
      const int32_t row = view.row0 + 16 * m + 8 * half + lane / 4;
      inverse[m][half] = sum > 0 ? 1 / sum : 0.0f;
      if (lane % 4 == 0 && row < shape.live_rows)
        args.lse[int64_t{row} * shape.q_heads + head] = softmax.highest[m][half] * shape.scale + logf(sum);
    }
  scale_rows(acc, inverse);
  store_rows<kM, D>(shared + warp_row * kTileRowBytes<D>, acc, 1, out_rows(shape, args.out, head), view.row0, shape);
}

template <class S, int D>
__global__ void __launch_bounds__(kSimtThreads) flash_forward_simt_kernel(const FlashForward<S> args) {
  __shared__ SimtShared shared;
  const FlashShape& shape = args.shape;
  const SimtThread thread;
  const int head = blockIdx.y, kv_head = head / shape.group();
  const int32_t q0 = static_cast<int32_t>(gridDim.x - 1 - blockIdx.x) * kSimtTile;
  const KeysSeen sees = {shape.spans};
  const Interval keys = seen_by_tile<kSimtTile>(shape, sees, q0, kSimtTile);
  const auto q_rows = query_rows(shape, args.qkv, head);
  const auto k_rows = key_rows(shape, args.qkv, kv_head), v_rows = value_rows(shape, args.qkv, kv_head);

  SimtResult<D> acc = {};
  float highest[kSimtMicro], sum[kSimtMicro] = {};
#pragma unroll
  for (int r = 0; r < kSimtMicro; ++r) highest[r] = kLowestScore;
  for (int32_t k0 = keys.begin; k0 < keys.end; k0 += kSimtTile) {
    SimtScores s;
    simt_multiply_rows<S>(s, shared, q_rows, q0, k_rows, k0, shape);
#pragma unroll
    for (int r = 0; r < kSimtMicro; ++r) {
      const Interval seen = sees(q0 + thread.y + kSimtSide * r);
      float top = highest[r];
#pragma unroll
      for (int c = 0; c < kSimtMicro; ++c) {
        if (!seen.contains(k0 + thread.x + kSimtSide * c)) s[r][c] = -INFINITY;
        top = fmaxf(top, s[r][c]);
      }
      top = simt_row_max(top);
      const float rescale = expf((highest[r] - top) * shape.scale);
      highest[r] = top;
      sum[r] *= rescale;
#pragma unroll
      for (int c = 0; c < kSimtMicro; ++c) {
        s[r][c] = expf((s[r][c] - top) * shape.scale);
        sum[r] += s[r][c];
      }
#pragma unroll
      for (int c = 0; c < D / kSimtSide; ++c) acc[r][c] *= rescale;
    }
    simt_multiply_columns<S, D>(acc, shared, s, v_rows, k0, shape);
  }

#pragma unroll
  for (int r = 0; r < kSimtMicro; ++r) {
    const float total = simt_row_sum(sum[r]);
    const int32_t row = q0 + thread.y + kSimtSide * r;
    const float inverse = total > 0 ? 1 / total : 0.0f;
#pragma unroll
    for (int c = 0; c < D / kSimtSide; ++c) acc[r][c] *= inverse;
    if (thread.x == 0 && row < shape.live_rows)
      args.lse[int64_t{row} * shape.q_heads + head] = highest[r] * shape.scale + logf(total);
  }
  simt_store<S, D>(acc, out_rows(shape, args.out, head), q0, shape);
}

template <int D>
void launch_mma(Ctx& ctx, const FlashForward<bf16>& args) {
  launch_flash(ctx, "flash_forward_mma_kernel", flash_forward_mma_kernel<D>, args, kQueryTile, args.shape.q_heads,
               kMmaThreads, kForwardSharedBytes<D>);
}
template <class S, int D>
void launch_simt(Ctx& ctx, const FlashForward<S>& args) {
  launch_flash(ctx, "flash_forward_simt_kernel", flash_forward_simt_kernel<S, D>, args, kSimtTile, args.shape.q_heads,
               kSimtThreads, 0);
}

}  // namespace

FlashShape flash_shape(Ctx& ctx, const AttentionShape& shape, int64_t rows) {
  MT_CHECK(shape.head_dim <= kMaxGpuHeadDim && shape.q_heads % shape.kv_heads == 0);
  MT_CHECK(shape.doc_offsets.rows() == shape.host_doc_offsets.rows());
  const int64_t docs = shape.doc_offsets.rows() - 1, padded = ceil_div(rows, kRowAlignment) * kRowAlignment;
  const int32_t live = shape.host_doc_offsets.as<int32_t>()[docs];
  MT_CHECK(live <= rows && padded <= INT32_MAX);
  const Tensor spans = ctx.stack.push("attention row spans", {padded, 2}, DType::kI32);
  const RowSpansArgs args = {.doc_offsets = shape.doc_offsets.as<int32_t>(),
                             .docs = static_cast<int32_t>(docs),
                             .live_rows = live,
                             .padded_rows = static_cast<int32_t>(padded),
                             .window = shape.window,
                             .spans = static_cast<RowSpan*>(spans.data)};
  row_spans_kernel<<<static_cast<unsigned>(ceil_div(padded, kSpanThreads)), kSpanThreads, 0, ctx.gpu->stream()>>>(args);
  check_cuda(cudaGetLastError(), "row_spans_kernel");
  return {.rows = static_cast<int32_t>(rows),
          .live_rows = live,
          .padded_rows = static_cast<int32_t>(padded),
          .head_dim = static_cast<int32_t>(shape.head_dim),
          .q_heads = static_cast<int32_t>(shape.q_heads),
          .kv_heads = static_cast<int32_t>(shape.kv_heads),
          .scale = 1 / std::sqrt(static_cast<float>(shape.head_dim)),
          .spans = args.spans};
}

void flash_attention_forward(Ctx& ctx, const AttentionShape& shape, const Tensor& qkv, const Tensor& out,
                             const Tensor& lse) {
  if (qkv.rows() == 0) return;
  const Stack::Frame frame(ctx.stack);
  const FlashShape flash = flash_shape(ctx, shape, qkv.rows());
  const bool tensor_cores = flash_tensor_cores(shape, {qkv, out});
  on_dtype(qkv.dtype, [&]<class S>(S) {
    const FlashForward<S> args = {flash, elements<S>(qkv), elements<S>(out), elements<float>(lse)};
    if constexpr (std::is_same_v<S, bf16>) {
      if (tensor_cores) return shape.head_dim <= 64 ? launch_mma<64>(ctx, args) : launch_mma<128>(ctx, args);
    }
    shape.head_dim <= 128 ? launch_simt<S, 128>(ctx, args) : launch_simt<S, 256>(ctx, args);
  });
}

}  // namespace mixtune::cuda
