// CUDA half of digest.h.
#include "kernels/cuda_ops.h"
#include "kernels/digest_math.h"
#include "kernels/tensor_list.cuh"

namespace mixtune::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int64_t kChunk = 1 << 16;  // words: 256 a thread

using Sum = unsigned long long;  // the type of atomicAdd

struct Entry {
  const void* data;
  int64_t bytes;
  Sum* digest;
};
using List = TensorList<Entry, 128, kChunk>;
static_assert(sizeof(List) <= kMaxParameterBytes);

__device__ uint32_t word_of(const Entry& entry, int64_t i) {
  if (4 * i + 4 > entry.bytes) return static_cast<const uint16_t*>(entry.data)[2 * i];
  return static_cast<const uint32_t*>(entry.data)[i];
}

// The order in which blocks add does not matter: the sums are of integers.
__global__ void __launch_bounds__(kThreads) digest_kernel(const __grid_constant__ List list) {
  const auto [tensor, begin] = list.chunk(blockIdx.x);
  const Entry& entry = list[tensor];
  const int64_t end = min(begin + kChunk, ceil_div(entry.bytes, int64_t{4}));
  int64_t rest = begin;
  Sum sum = 0;
  if (reinterpret_cast<uintptr_t>(entry.data) % sizeof(uint4) == 0) {
    rest = begin + (min(end, entry.bytes / 4) - begin) / 4 * 4;
#pragma unroll 4
    for (int64_t i = begin + 4 * threadIdx.x; i < rest; i += 4 * kThreads) {
      const uint4 words = static_cast<const uint4*>(entry.data)[i / 4];
      sum +=
          mixed_word(words.x, i) + mixed_word(words.y, i + 1) + mixed_word(words.z, i + 2) + mixed_word(words.w, i + 3);
    }
  }
  for (int64_t i = rest + threadIdx.x; i < end; i += kThreads) sum += mixed_word(word_of(entry, i), i);
  const Sum total = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) atomicAdd(entry.digest, total);
}

}  // namespace

void digest(Ctx& ctx, std::span<const Tensor> tensors, const Tensor& digests) {
  zero(ctx, digests);
  List list;
  const auto launch = [&] {
    if (list.blocks() == 0) return;
    digest_kernel<<<list.blocks(), kThreads, 0, ctx.gpu->stream()>>>(list);
    check_cuda(cudaGetLastError(), "digest_kernel");
    list.clear();
  };
  for (size_t t = 0; t < tensors.size(); ++t) {
    const auto bytes = static_cast<int64_t>(tensors[t].bytes());
    if (bytes == 0) continue;
    if (list.full()) launch();
    list.add({tensors[t].data, bytes, reinterpret_cast<Sum*>(digests.as<int64_t>() + t)}, ceil_div(bytes, int64_t{4}));
  }
  launch();
}

}  // namespace mixtune::cuda
