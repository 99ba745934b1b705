#include "kernels/attention_offsets.h"
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

}  // namespace mixtune::cuda
