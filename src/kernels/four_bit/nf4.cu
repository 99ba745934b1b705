// CUDA half of nf4.h. Bound by memory: a weight is 0.5 bytes and a block's absmax on one side, 2 on the other.
//
// Every product and sum is rounded by itself (__fmul_rn, __fadd_rn), as on the CPU: nvcc would make one rounding of
// two.
#include <cuda_fp16.h>

#include "kernels/four_bit/cuda_ops.h"
#include "kernels/tensor_list.cuh"

namespace mixtune::cuda {

namespace {

constexpr int kThreads = 256, kMapValues = 256;
constexpr int kPerThread = 8;        // codes in a word, values in 16 bytes
constexpr int64_t kChunk = 1 << 14;  // elements: 8 turns of a block of threads
static_assert(kChunk % (kThreads * kPerThread) == 0);

__constant__ constexpr float kValues[16] = {kNf4Values[0],  kNf4Values[1],  kNf4Values[2],  kNf4Values[3],
                                            kNf4Values[4],  kNf4Values[5],  kNf4Values[6],  kNf4Values[7],
                                            kNf4Values[8],  kNf4Values[9],  kNf4Values[10], kNf4Values[11],
                                            kNf4Values[12], kNf4Values[13], kNf4Values[14], kNf4Values[15]};

// A tensor to dequantise.
struct Entry {
  const uint8_t* codes;
  const void* absmax;          // uint8_t, or float where there is no nested_absmax
  const float* nested_absmax;  // of the first element's block on
  const float *map, *offset;
  bf16* to;
  int64_t elements;
  int block_bits;   // log2 of a block's elements
  int first_block;  // in its block of absmax
  DType through;
};
using List = TensorList<Entry, 48, kChunk>;
static_assert(sizeof(List) <= kMaxParameterBytes);

// Both tables in shared memory, where lanes read different places of them at once.
struct Tables {
  float values[16], map[kMapValues];
};

__device__ float absmax_of(const Entry& entry, const Tables& tables, int64_t block) {
  if (entry.nested_absmax == nullptr) return static_cast<const float*>(entry.absmax)[block];
  const float nested = entry.nested_absmax[(entry.first_block + block) / kNestedBlock];
  const float less_mean = __fmul_rn(tables.map[static_cast<const uint8_t*>(entry.absmax)[block]], nested);
  return __fadd_rn(less_mean, *entry.offset);
}

__device__ bf16 rounded(DType through, float x) {
  return __float2bfloat16_rn(through == DType::kF16 ? __half2float(__float2half_rn(x)) : x);
}

__device__ void dequantise_word(const Entry& entry, const Tables& tables, int64_t i) {
  const uint32_t word = *reinterpret_cast<const uint32_t*>(entry.codes + i / 2);
  const float absmax = absmax_of(entry, tables, i >> entry.block_bits);
  uint4 bits;
  bf16* values = reinterpret_cast<bf16*>(&bits);
#pragma unroll
  for (int j = 0; j < kPerThread; ++j) {
    const uint32_t code = (word >> (8 * (j / 2) + (j % 2 == 0 ? 4 : 0))) & 15;
    values[j] = rounded(entry.through, __fmul_rn(tables.values[code], absmax));
  }
  *reinterpret_cast<uint4*>(entry.to + i) = bits;
}

__device__ void dequantise_one(const Entry& entry, const Tables& tables, int64_t i) {
  const uint32_t code = (entry.codes[i / 2] >> (i % 2 == 0 ? 4 : 0)) & 15;
  entry.to[i] = rounded(entry.through, __fmul_rn(tables.values[code], absmax_of(entry, tables, i >> entry.block_bits)));
}

__global__ void __launch_bounds__(kThreads) nf4_dequantise_kernel(const __grid_constant__ List list) {
  __shared__ Tables tables;
  const auto [tensor, begin] = list.chunk(blockIdx.x);
  const Entry& entry = list[tensor];
  if (threadIdx.x < 16) tables.values[threadIdx.x] = kValues[threadIdx.x];
  if (entry.nested_absmax != nullptr) tables.map[threadIdx.x] = entry.map[threadIdx.x];
  __syncthreads();
  const int64_t end = min(begin + kChunk, entry.elements);
  const bool fits =
      reinterpret_cast<uintptr_t>(entry.codes) % 4 == 0 && reinterpret_cast<uintptr_t>(entry.to) % 16 == 0;
  const int64_t words_end = fits ? begin + (end - begin) / kPerThread * kPerThread : begin;
#pragma unroll 4
  for (int64_t i = begin + kPerThread * threadIdx.x; i < words_end; i += kPerThread * kThreads)
    dequantise_word(entry, tables, i);
  for (int64_t i = words_end + threadIdx.x; i < end; i += kThreads) dequantise_one(entry, tables, i);
}
static_assert(kThreads == kMapValues);

int log2_of(int64_t power) {
  int bits = 0;
  while ((int64_t{1} << bits) < power) ++bits;
  return bits;
}

Entry entry_of(const Nf4Dequantise& args) {
  const Nf4Tensor& from = args.from;
  const int64_t first_block = from.first / from.block;
  return {
      .codes = static_cast<const uint8_t*>(from.codes.data),
      .absmax = from.absmax.data,
      .nested_absmax = from.is_nested() ? elements<float>(from.nested_absmax) + first_block / kNestedBlock : nullptr,
      .map = elements<float>(from.nested_map),
      .offset = elements<float>(from.offset),
      .to = elements<bf16>(args.to),
      .elements = from.elements,
      .block_bits = log2_of(from.block),
      .first_block = static_cast<int>(first_block % kNestedBlock),
      .through = args.through};
}

// How many middles of two neighbours lie below x.
template <int N>
__device__ int nearest_code(const float* values, float x) {
  int code = 0;
#pragma unroll
  for (int step = N / 2; step > 0; step /= 2) {
    const int middle = code + step - 1;
    if (x > __fadd_rn(values[middle], values[middle + 1]) / 2) code += step;
  }
  return code;
}

struct Quantising {
  const bf16* x;
  uint8_t* codes;
  float* absmax;
  int64_t elements, block;
};

// A warp takes a block, a lane neighbours two by two.
__global__ void __launch_bounds__(kThreads) nf4_codes_kernel(const __grid_constant__ Quantising a) {
  constexpr float kLeast = 1e-38F;
  __shared__ float values[16];
  if (threadIdx.x < 16) values[threadIdx.x] = kValues[threadIdx.x];
  __syncthreads();
  const int64_t block = (blockIdx.x * int64_t{kThreads} + threadIdx.x) / kWarp, begin = block * a.block;
  if (begin >= a.elements) return;
  const int64_t n = min(a.block, a.elements - begin);
  const int lane = threadIdx.x % kWarp;
  float largest = 0;
  for (int64_t i = lane; i < n; i += kWarp) largest = fmaxf(largest, fabsf(to_float(a.x[begin + i])));
  largest = warp_max(largest);
  const bool whole = n == a.block;
  const float divisor = fmaxf(largest, kLeast), factor = __fdiv_rn(1.0F, divisor);
  const auto code = [&](int64_t i) {
    const float x = i < n ? to_float(a.x[begin + i]) : 0.0F;
    const float quotient = whole ? __fmul_rn(x, factor) : __fdiv_rn(x, divisor);
    return nearest_code<16>(values, fminf(fmaxf(quotient, -1.0F), 1.0F));
  };
  for (int64_t i = 2 * lane; i < n; i += 2 * kWarp)
    a.codes[(begin + i) / 2] = static_cast<uint8_t>(code(i) << 4 | code(i + 1));
  if (lane == 0) a.absmax[block] = whole ? largest : divisor;
}

// One block of threads, so in one order. The sum is in fp64, where it is exact unless absmax differ by 2^9 and more.
__global__ void __launch_bounds__(kThreads) nf4_mean_kernel(const float* absmax, int64_t blocks, float* offset) {
  double sum = 0;
  for (int64_t b = threadIdx.x; b < blocks; b += kThreads) sum += static_cast<double>(absmax[b]);
  const double total = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) *offset = static_cast<float>(total / static_cast<double>(blocks));
}

struct Nesting {
  const float *absmax, *map, *offset;
  uint8_t* codes;
  float* nested_absmax;
  int64_t blocks;
};

// A block of threads takes kNestedBlock absmax.
__global__ void __launch_bounds__(kThreads) nf4_nested_kernel(const __grid_constant__ Nesting a) {
  static_assert(kThreads == kNestedBlock);
  __shared__ float map[kMapValues];
  map[threadIdx.x] = a.map[threadIdx.x];
  const int64_t b = blockIdx.x * int64_t{kNestedBlock} + threadIdx.x;
  const float less_mean = b < a.blocks ? __fsub_rn(a.absmax[b], *a.offset) : 0.0F;
  const float largest = block_max<kThreads>(fabsf(less_mean));  // its barrier is behind the map, too
  if (threadIdx.x == 0) a.nested_absmax[blockIdx.x] = largest;
  if (b < a.blocks)
    a.codes[b] = largest == 0 ? 0 : static_cast<uint8_t>(nearest_code<kMapValues>(map, __fdiv_rn(less_mean, largest)));
}

unsigned grid_of(int64_t blocks) {
  return static_cast<unsigned>(blocks);
}

}  // namespace

void nf4_dequantise(Ctx& ctx, std::span<const Nf4Dequantise> tensors) {
  List list;
  const auto launch = [&] {
    if (list.blocks() == 0) return;
    nf4_dequantise_kernel<<<grid_of(list.blocks()), kThreads, 0, ctx.gpu->stream()>>>(list);
    check_cuda(cudaGetLastError(), "nf4_dequantise_kernel");
    list.clear();
  };
  for (const Nf4Dequantise& tensor : tensors) {
    if (tensor.from.elements == 0) continue;
    if (list.full()) launch();
    list.add(entry_of(tensor), tensor.from.elements);
  }
  launch();
}

void nf4_quantise(Ctx& ctx, const Nf4Quantise& args, const Tensor& absmax) {
  const Nf4Tensor& to = args.to;
  const int64_t blocks = to.blocks();
  if (blocks == 0) return;
  constexpr int64_t kWarps = kThreads / kWarp;
  nf4_codes_kernel<<<grid_of(ceil_div(blocks, kWarps)), kThreads, 0, ctx.gpu->stream()>>>(
      {.x = elements<bf16>(args.x),
       .codes = static_cast<uint8_t*>(to.codes.data),
       .absmax = elements<float>(absmax),
       .elements = to.elements,
       .block = to.block});
  check_cuda(cudaGetLastError(), "nf4_codes_kernel");
  if (!to.is_nested()) return;
  nf4_mean_kernel<<<1, kThreads, 0, ctx.gpu->stream()>>>(elements<float>(absmax), blocks, elements<float>(to.offset));
  check_cuda(cudaGetLastError(), "nf4_mean_kernel");
  nf4_nested_kernel<<<grid_of(to.nested_blocks()), kThreads, 0, ctx.gpu->stream()>>>(
      {.absmax = elements<float>(absmax),
       .map = elements<float>(to.nested_map),
       .offset = elements<float>(to.offset),
       .codes = static_cast<uint8_t*>(to.absmax.data),
       .nested_absmax = elements<float>(to.nested_absmax),
       .blocks = blocks});
  check_cuda(cudaGetLastError(), "nf4_nested_kernel");
}

}  // namespace mixtune::cuda
