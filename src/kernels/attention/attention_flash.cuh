// What mixtune's attention kernels share: who sees whom, where a head's rows lie, and launching.
//
// Tiles are rows of the whole batch, whatever documents they belong to. Query i sees the keys of one interval, and key
// j is seen by the queries of one; both ends of either grow with the row. So the extremes of a tile are those of its
// first and last row, a loop runs over just the tiles between them, and a mask compares an index with its row's
// interval.
#pragma once

#include "kernels/attention/attention_flash.h"
#include "kernels/cuda_math.cuh"

namespace mixtune::cuda {

// Who sees whom for one row of the batch: it sees keys [first_key, row], and queries [row, query_end) see it. Dead rows
// see none and are seen by none: {INT32_MAX, live rows}, which keeps both growing.
struct alignas(8) RowSpan {
  int32_t first_key, query_end;
};

struct FlashShape {
  int32_t rows, live_rows;  // of the batch, and those in documents: the first ones
  int32_t padded_rows;      // a multiple of kRowAlignment, so that tiles may read per-row values past the end
  int32_t head_dim, q_heads, kv_heads;
  float scale;           // the factor on scores
  const RowSpan* spans;  // [padded_rows]

  __host__ __device__ int32_t group() const { return q_heads / kv_heads; }  // query heads for each key-value head
};

// Makes the shape, its spans on ctx.stack: the caller has a frame.
FlashShape flash_shape(Ctx& ctx, const AttentionShape& shape, int64_t rows);

// Whether these operands can be multiplied on tensor cores.
inline bool flash_tensor_cores(const AttentionShape& shape, std::initializer_list<Tensor> operands) {
  bool fits = shape.head_dim <= 128;
  for (const Tensor& x : operands) fits &= x.dtype == DType::kBF16 && vectors_fit<bf16>(x.data, shape.head_dim);
  return fits;
}

struct Interval {
  int32_t begin, end;
  __device__ bool contains(int32_t i) const { return i >= begin && i < end; }
};
struct KeysSeen {
  const RowSpan* spans;
  __device__ Interval operator()(int32_t query) const { return {spans[query].first_key, query + 1}; }
};
struct QueriesSeeing {
  const RowSpan* spans;
  __device__ Interval operator()(int32_t key) const { return {key, spans[key].query_end}; }
};

// The interval that any of a tile's rows sees, from a multiple of `Columns` on; or an empty one: begin >= end.
template <int Columns, class Sees>
__device__ Interval seen_by_tile(const FlashShape& shape, const Sees& sees, int32_t row0, int32_t tile_rows) {
  if (row0 >= shape.live_rows) return {0, 0};
  const int32_t last = min(row0 + tile_rows, shape.live_rows) - 1;
  return {sees(row0).begin / Columns * Columns, sees(last).end};
}

// One head of a [T, heads * head_dim] tensor: row t is at data + t * stride.
template <class S>
struct HeadRows {
  S* data;
  int32_t stride;
  __device__ S* row(int32_t t) const { return data + int64_t{t} * stride; }
};
template <class S>
__device__ HeadRows<S> out_rows(const FlashShape& shape, S* out, int32_t head) {
  return {out + head * shape.head_dim, shape.q_heads * shape.head_dim};
}
template <class S>
__device__ HeadRows<S> query_rows(const FlashShape& shape, S* qkv, int32_t head) {
  return {qkv + head * shape.head_dim, (shape.q_heads + 2 * shape.kv_heads) * shape.head_dim};
}
template <class S>
__device__ HeadRows<S> key_rows(const FlashShape& shape, S* qkv, int32_t kv_head) {
  return query_rows(shape, qkv, shape.q_heads + kv_head);
}
template <class S>
__device__ HeadRows<S> value_rows(const FlashShape& shape, S* qkv, int32_t kv_head) {
  return query_rows(shape, qkv, shape.q_heads + shape.kv_heads + kv_head);
}

// A query's statistics for backward: its log-sum-exp (times log2(e) for tensor cores, where probabilities are powers of
// two) and dout . out. Rows in no document: {infinity, 0}, so that their probabilities are 0.
struct alignas(8) RowStatistics {
  float lse, delta;
};

template <class S>
struct FlashForward {
  FlashShape shape;
  const S* qkv;
  S* out;
  float* lse;
};
template <class S>
struct FlashBackward {
  FlashShape shape;
  const S *qkv, *dout;
  S* dqkv;
  const RowStatistics* statistics;  // [q_heads, padded_rows]
};

// Launches a block for every `tile_rows` rows of every head, with `shared_bytes` of dynamic shared memory.
template <class Args>
void launch_flash(Ctx& ctx, const char* name, void (*kernel)(Args), const Args& args, int tile_rows, int heads,
                  int threads, int shared_bytes) {
  if (shared_bytes > 0)
    check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    shared_bytes),
               name);
  const dim3 grid(static_cast<unsigned>(ceil_div(args.shape.rows, tile_rows)), static_cast<unsigned>(heads));
  kernel<<<grid, threads, shared_bytes, ctx.gpu->stream()>>>(args);
  check_cuda(cudaGetLastError(), name);
}

}  // namespace mixtune::cuda
