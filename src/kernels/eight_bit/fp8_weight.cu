// CUDA half of fp8_weight.h. Bound by memory: a weight is 1 byte on one side, 2 on the other.
#include "kernels/eight_bit/coded_tile.cuh"
#include "kernels/eight_bit/cuda_ops.h"
#include "kernels/tensor_list.cuh"

namespace mixtune::cuda {

namespace {

// Whether neighbours of a row can be read and written in chunks of kChunk.
bool chunks_fit(const Tensor& values, const Fp8Weight& weight) {
  return vectors_fit<bf16>(values.data, weight.codes.shape[1]) &&
         reinterpret_cast<uintptr_t>(weight.codes.data) % kChunk == 0;
}

struct Quantising {
  const bf16* x;
  uint8_t* codes;
  float* scales;
  int64_t rows, columns;
  bool fits;
};

// A chunk of a row; 0 where it is beyond the matrix.
__device__ uint4 load_chunk(const Quantising& a, int64_t row, int64_t column) {
  uint4 chunk = {};
  if (row >= a.rows || column >= a.columns) return chunk;
  const bf16* from = a.x + row * a.columns + column;
  if (a.fits) return *reinterpret_cast<const uint4*>(from);
  for (int64_t j = 0; j < min(int64_t{kChunk}, a.columns - column); ++j) reinterpret_cast<bf16*>(&chunk)[j] = from[j];
  return chunk;
}

__device__ void store_codes(const Quantising& a, int64_t row, int64_t column, const uint2& codes) {
  if (row >= a.rows || column >= a.columns) return;
  uint8_t* to = a.codes + row * a.columns + column;
  if (a.fits) {
    *reinterpret_cast<uint2*>(to) = codes;
    return;
  }
  for (int64_t j = 0; j < min(int64_t{kChunk}, a.columns - column); ++j)
    to[j] = reinterpret_cast<const uint8_t*>(&codes)[j];
}

// A block of threads takes a square.
__global__ void __launch_bounds__(kTileThreads) fp8_quantise_kernel(const __grid_constant__ Quantising a) {
  __shared__ BlockMax most;
  const int64_t across = ceil_div(a.columns, kTileSide), top = blockIdx.x / across * kTileSide,
                column = blockIdx.x % across * kTileSide + tile_chunk() * kChunk;
  uint4 chunks[kPasses];
  uint32_t own = 0;
#pragma unroll
  for (int p = 0; p < kPasses; ++p) {
    chunks[p] = load_chunk(a, top + tile_row(p), column);
    own = max(own, finish_chunk(chunks[p]));
  }
  most.give(own);
  __syncthreads();
  const TileScale<false> scale(most.take());
#pragma unroll
  for (int p = 0; p < kPasses; ++p) store_codes(a, top + tile_row(p), column, codes_of_chunk(chunks[p], scale));
  if (threadIdx.x == 0) a.scales[blockIdx.x] = scale.scale;
}

constexpr int kThreads = 256;
constexpr int64_t kPiece = 1 << 14;  // elements: 8 turns of a block of threads
static_assert(kPiece % (kThreads * kChunk) == 0);

// A matrix to dequantise.
struct Entry {
  const uint8_t* codes;
  const float* scales;
  bf16* to;
  int64_t elements, columns;
  bool fits;
};
using List = TensorList<Entry, 48, kPiece>;
static_assert(sizeof(List) <= kMaxParameterBytes);

// The scales of a piece's elements.
struct PieceScales {
  const float* scales;
  int64_t first_row, columns, across;
  uint32_t first_column;

  __device__ PieceScales(const Entry& entry, int64_t begin)
      : scales(entry.scales),
        first_row(begin / entry.columns),
        columns(entry.columns),
        across(ceil_div(entry.columns, kTileSide)),
        first_column(static_cast<uint32_t>(begin % entry.columns)) {}

  // Of the element `i` places after the piece's first.
  __device__ float operator[](uint32_t i) const {
    const uint32_t place = first_column + i, wide = static_cast<uint32_t>(columns);
    return scales[(first_row + place / wide) / kTileSide * across + place % wide / kTileSide];
  }
};

__device__ uint32_t dequantised(uint32_t pair, float scale) {
  const __half2 halves = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(pair & 0xFFFF), __NV_E4M3);
  const float2 values = __half22float2(halves);
  const __nv_bfloat162 rounded = __floats2bfloat162_rn(values.x * scale, values.y * scale);
  return reinterpret_cast<const uint32_t&>(rounded);
}

__global__ void __launch_bounds__(kThreads) fp8_dequantise_kernel(const __grid_constant__ List list) {
  const auto [tensor, begin] = list.chunk(blockIdx.x);
  const Entry& entry = list[tensor];
  const PieceScales scales(entry, begin);
  const auto count = static_cast<uint32_t>(min(kPiece, entry.elements - begin));
  if (entry.fits) {
#pragma unroll 4
    for (uint32_t i = kChunk * threadIdx.x; i < count; i += kChunk * kThreads) {
      const uint2 codes = *reinterpret_cast<const uint2*>(entry.codes + begin + i);
      const float scale = scales[i];
      *reinterpret_cast<uint4*>(entry.to + begin + i) = {dequantised(codes.x, scale), dequantised(codes.x >> 16, scale),
                                                         dequantised(codes.y, scale),
                                                         dequantised(codes.y >> 16, scale)};
    }
    return;
  }
  for (uint32_t i = threadIdx.x; i < count; i += kThreads) {
    const uint32_t bits = dequantised(entry.codes[begin + i], scales[i]) & 0xFFFF;
    entry.to[begin + i] = __ushort_as_bfloat16(static_cast<uint16_t>(bits));
  }
}

Entry entry_of(const Fp8Dequantise& args) {
  return {.codes = static_cast<const uint8_t*>(args.from.codes.data),
          .scales = elements<float>(args.from.scales),
          .to = elements<bf16>(args.to),
          .elements = args.to.elements(),
          .columns = args.from.codes.shape[1],
          .fits = chunks_fit(args.to, args.from)};
}

}  // namespace

void fp8_quantise(Ctx& ctx, const Fp8Quantise& args) {
  const int64_t squares = args.to.scales.elements();
  if (squares == 0) return;
  fp8_quantise_kernel<<<static_cast<unsigned>(squares), kTileThreads, 0, ctx.gpu->stream()>>>(
      {.x = elements<bf16>(args.x),
       .codes = static_cast<uint8_t*>(args.to.codes.data),
       .scales = elements<float>(args.to.scales),
       .rows = args.to.codes.shape[0],
       .columns = args.to.codes.shape[1],
       .fits = chunks_fit(args.x, args.to)});
  check_cuda(cudaGetLastError(), "fp8_quantise_kernel");
}

void fp8_dequantise(Ctx& ctx, std::span<const Fp8Dequantise> matrices) {
  List list;
  const auto launch = [&] {
    if (list.blocks() == 0) return;
    fp8_dequantise_kernel<<<static_cast<unsigned>(list.blocks()), kThreads, 0, ctx.gpu->stream()>>>(list);
    check_cuda(cudaGetLastError(), "fp8_dequantise_kernel");
    list.clear();
  };
  for (const Fp8Dequantise& matrix : matrices) {
    if (matrix.to.elements() == 0) continue;
    if (list.full()) launch();
    list.add(entry_of(matrix), matrix.to.elements());
  }
  launch();
}

}  // namespace mixtune::cuda
