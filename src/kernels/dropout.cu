// CUDA half of dropout.h: a block takes a row, a thread packs of its elements.
#include "kernels/cuda_ops.h"
#include "kernels/cuda_pack.cuh"
#include "kernels/dropout.h"

namespace mixtune::cuda {

namespace {

constexpr int kThreads = 256;

struct Mask {
  uint64_t mixed_key;
  uint32_t threshold;
  int64_t first;
  const int64_t* numbers;  // or null

  __device__ int64_t number(int64_t row) const { return numbers ? numbers[row] : first + row; }
};

// The neighbours from `element` on, which is even where there are several.
template <class S, int Width>
__device__ Pack<S, Width> left_of(const Pack<S, Width>& x, const Mask& mask, uint64_t element) {
  if constexpr (Width == 1) {
    return is_dropped(mask.mixed_key, element, mask.threshold) ? Pack<S, 1>{} : x;
  } else {
    Pack<S, Width> left;
#pragma unroll
    for (int i = 0; i < Width; i += 2) {
      const uint64_t bits = mixed_bits(mask.mixed_key, (element + i) >> 1);
      left.x[i] = static_cast<uint32_t>(bits) < mask.threshold ? S{} : x.x[i];
      left.x[i + 1] = static_cast<uint32_t>(bits >> 32) < mask.threshold ? S{} : x.x[i + 1];
    }
    return left;
  }
}

template <class S, int Width>
__global__ void __launch_bounds__(kThreads) drop_kernel(const S* x, S* y, int64_t columns, Mask mask) {
  const int64_t row = blockIdx.x;
  const auto first = static_cast<uint64_t>(mask.number(row) * columns);
  for (int64_t i = threadIdx.x * Width; i < columns; i += kThreads * Width) {
    const int64_t at = row * columns + i;
    store(y + at, left_of(load<Width>(x + at), mask, first + static_cast<uint64_t>(i)));
  }
}

}  // namespace

void drop_out(Ctx& ctx, const DropOut& args) {
  const int64_t rows = args.x.rows(), columns = args.x.shape[1];
  if (args.x.elements() == 0) return;
  const Dropout& dropout = args.dropout;
  const Mask mask = {mix_key(dropout.key), drop_threshold(dropout.share), dropout.first,
                     dropout.numbers ? dropout.numbers.as<int64_t>() : nullptr};
  on_dtype(args.x.dtype, [&]<class S>(S) {
    on_width<S>(packs_fit<S>(columns, args.x, args.y), [&](auto width) {
      drop_kernel<S, width><<<static_cast<unsigned>(rows), kThreads, 0, ctx.gpu->stream()>>>(
          elements<S>(args.x), elements<S>(args.y), columns, mask);
    });
  });
  check_cuda(cudaGetLastError(), "drop_kernel");
}

}  // namespace mixtune::cuda
