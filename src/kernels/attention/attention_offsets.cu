#include "kernels/attention/attention_offsets.h"
#include "kernels/cuda_math.cuh"

namespace mixtune::cuda {

namespace {

struct FillOffsets {
  const int32_t* documents;  // [count + 1]
  int32_t count, n;
  int32_t qkv_width, out_width, kv_width, q_heads;
  int32_t* lengths;
  int64_t *qkv, *out, *kv, *scores;
};

__global__ void fill_offsets_kernel(FillOffsets args) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i > args.n) return;
  const int64_t row = args.documents[min(i, args.count)];
  args.qkv[i] = row * args.qkv_width;
  args.out[i] = row * args.out_width;
  args.kv[i] = row * args.kv_width;
  args.scores[i] = row * args.q_heads;
  if (i < args.n) args.lengths[i] = args.documents[min(i + 1, args.count)] - static_cast<int32_t>(row);
}

// The copy, in vectors of 16 bytes.
struct CopyKvGradients {
  const uint4 *dk, *dv;
  uint4* dkv;  // in dqkv: dk's place in the first row
  int64_t rows;
  int32_t width, stride;  // of a row: dk's width, dqkv's stride
};

constexpr int kCopyThreads = 256, kCopyRows = 4;  // of a block

__global__ void __launch_bounds__(kCopyThreads) copy_kv_gradients_kernel(CopyKvGradients args) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kCopyRows;
  const int width = 2 * args.width, n = static_cast<int>(min(args.rows - first, int64_t{kCopyRows})) * width;
  uint4* __restrict__ to = args.dkv + first * args.stride;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kCopyThreads) {
    const int row = i / width, column = i - row * width;
    const int64_t at = (first + row) * args.width + column;
    to[static_cast<int64_t>(row) * args.stride + column] =
        __ldg(column < args.width ? args.dk + at : args.dv + (at - args.width));
  }
}

}  // namespace

RaggedOffsets make_ragged_offsets(Ctx& ctx, const AttentionShape& shape, int64_t n) {
  constexpr int kThreads = 128;
  const int64_t d = shape.head_dim, count = shape.doc_offsets.rows() - 1;
  MT_CHECK(count <= n);
  RaggedOffsets offsets;
  offsets.lengths = ctx.stack.push("document lengths", {n}, DType::kI32);
  for (Tensor* tensor : {&offsets.qkv, &offsets.out, &offsets.kv, &offsets.scores})
    *tensor = ctx.stack.push("document offsets", {n + 1}, DType::kI64);
  const FillOffsets args = {shape.doc_offsets.as<int32_t>(),
                            static_cast<int32_t>(count),
                            static_cast<int32_t>(n),
                            static_cast<int32_t>((shape.q_heads + 2 * shape.kv_heads) * d),
                            static_cast<int32_t>(shape.q_heads * d),
                            static_cast<int32_t>(shape.kv_heads * d),
                            static_cast<int32_t>(shape.q_heads),
                            offsets.lengths.as<int32_t>(),
                            offsets.qkv.as<int64_t>(),
                            offsets.out.as<int64_t>(),
                            offsets.kv.as<int64_t>(),
                            offsets.scores.as<int64_t>()};
  fill_offsets_kernel<<<static_cast<unsigned>(n / kThreads + 1), kThreads, 0, ctx.gpu->stream()>>>(args);
  check_cuda(cudaGetLastError(), "fill_offsets_kernel");
  return offsets;
}

void copy_kv_gradients(Ctx& ctx, const Tensor& dk, const Tensor& dv, const Tensor& dqkv) {
  const int64_t width = dk.row_elements(), stride = dqkv.row_elements();
  MT_CHECK(dk.shape == dv.shape && dk.rows() <= dqkv.rows() && 2 * width < stride);
  bf16* dkv = elements<bf16>(dqkv) + stride - 2 * width;
  MT_CHECK(vectors_fit<bf16>(dkv, width) && stride % kVector<bf16> == 0);
  if (dk.elements() == 0) return;
  const CopyKvGradients args = {reinterpret_cast<const uint4*>(elements<bf16>(dk)),
                                reinterpret_cast<const uint4*>(elements<bf16>(dv)),
                                reinterpret_cast<uint4*>(dkv),
                                dk.rows(),
                                static_cast<int32_t>(width / kVector<bf16>),
                                static_cast<int32_t>(stride / kVector<bf16>)};
  const auto blocks = static_cast<unsigned>(ceil_div(args.rows, kCopyRows));
  copy_kv_gradients_kernel<<<blocks, kCopyThreads, 0, ctx.gpu->stream()>>>(args);
  check_cuda(cudaGetLastError(), "copy_kv_gradients_kernel");
}

}  // namespace mixtune::cuda
