// CUDA halves of optimizer.h.
#include <bit>
#include <cfloat>
#include <limits>

#include "base/random.h"
#include "kernels/adamw_math.h"
#include "kernels/cuda_ops.h"
#include "kernels/tensor_list.cuh"

namespace mixtune::cuda {

namespace {

constexpr int kThreads = 256;

struct SquaresEntry {
  const void* data;
  int64_t elements;
  bool is_bf16, vectors;
};
constexpr int64_t kSquaresChunk = 1 << 16;  // 256 elements a thread
using SquaresList = TensorList<SquaresEntry, 128, kSquaresChunk>;
static_assert(sizeof(SquaresList) + 16 <= kMaxParameterBytes);

// A thread's share of the sum over x [n]: in fp32 for each place of a vector, then in fp64.
template <class S>
__device__ double thread_squares(const S* x, int64_t n, bool vectors) {
  constexpr int kWidth = kVector<S>;
  float sums[kWidth] = {};
  int64_t rest = 0;
  if (vectors) {
    rest = n / kWidth * kWidth;
#pragma unroll 4
    for (int64_t i = threadIdx.x * kWidth; i < rest; i += kThreads * kWidth) {
      float values[kWidth];
      load_vector(x + i, values);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) sums[j] = fmaf(values[j], values[j], sums[j]);
    }
  }
  for (int64_t i = rest + threadIdx.x; i < n; i += kThreads) {
    const float value = to_float(x[i]);
    sums[0] = fmaf(value, value, sums[0]);
  }
  double sum = 0;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) sum += sums[j];
  return sum;
}

__global__ void __launch_bounds__(kThreads)
    squares_kernel(const __grid_constant__ SquaresList list, double* __restrict__ partial) {
  const auto [tensor, begin] = list.chunk(blockIdx.x);
  const SquaresEntry& entry = list[tensor];
  const int64_t n = min(kSquaresChunk, entry.elements - begin);
  const double sum = entry.is_bf16 ? thread_squares(static_cast<const bf16*>(entry.data) + begin, n, entry.vectors)
                                   : thread_squares(static_cast<const float*>(entry.data) + begin, n, entry.vectors);
  const double total = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

__global__ void clip_scale_kernel(const double* squares, const double* guards, int64_t n, double max_norm,
                                  double* scale) {
  bool finite = isfinite(*squares);
  for (int64_t i = threadIdx.x; i < n; i += kWarp) finite = finite && isfinite(guards[i]);
  finite = __all_sync(~0u, finite);
  if (threadIdx.x > 0) return;
  const double clipped = max_norm > 0 ? fmin(1.0, max_norm / (sqrt(*squares) + 1e-6)) : 1.0;
  *scale = finite ? clipped : std::numeric_limits<double>::quiet_NaN();
}

// kWidth neighbours in memory. One access of their own size moves them (the compiler splits plain ones), marked as not
// read again soon.
template <class S, int kWidth>
struct Pack {
  S x[kWidth];
};

template <class S, int kWidth>
struct Access {
  static constexpr size_t kBytes = kWidth * sizeof(S);
  using Wide = std::conditional_t<kBytes == 16, uint4, uint2>;
  using Narrow = std::conditional_t<kBytes == 4, unsigned, unsigned short>;
  using Bits = std::conditional_t<(kBytes > 4), Wide, Narrow>;
};

template <int kWidth, class S>
__device__ Pack<S, kWidth> load(const S* from) {
  return std::bit_cast<Pack<S, kWidth>>(__ldcs(reinterpret_cast<const typename Access<S, kWidth>::Bits*>(from)));
}
template <int kWidth, class S>
__device__ void store(S* to, const Pack<S, kWidth>& pack) {
  using Bits = typename Access<S, kWidth>::Bits;
  __stcs(reinterpret_cast<Bits*>(to), std::bit_cast<Bits>(pack));
}

// stochastic_bf16_bits of a result of arithmetic, in fewer instructions. A NaN is then 0x7FFFFFFF, the one value that
// the minimum (of signed integers) changes: so adding leaves it a NaN. Nothing added here carries an infinity further.
__device__ bf16 round_stochastically(float x, uint32_t bits) {
  const auto held = static_cast<uint32_t>(min(__float_as_int(x), 0x7FFF0000));
  return __ushort_as_bfloat16(static_cast<uint16_t>((held + (bits & 0xFFFF)) >> 16));
}

// Sets pack[i] to x, for bf16 by the 16 bits of `word` that begin with kFirstBit.
template <int kFirstBit, class S, int kWidth>
__device__ void set_rounded(Pack<S, kWidth>& pack, int i, float x, uint32_t word) {
  if constexpr (std::is_same_v<S, bf16>)
    pack.x[i] = round_stochastically(x, word >> kFirstBit);
  else
    pack.x[i] = x;
}

// Writes rounding_bits of elements index, index + 1, ...; index is even where there are several.
template <int kWidth>
__device__ void rounding_words(uint64_t mixed_key, uint64_t index, uint32_t (&words)[kWidth]) {
#pragma unroll
  for (int j = 0; j < kWidth; j += 2) {
    const uint64_t bits = mixed_bits(mixed_key, (index + j) / 2);
    words[j] = static_cast<uint32_t>(kWidth == 1 ? bits >> (32 * (index & 1)) : bits);
    if constexpr (kWidth > 1) words[j + 1] = static_cast<uint32_t>(bits >> 32);
  }
}

struct AdamWEntry {
  void *weight, *master, *m, *v;
  const void* grad;
  int64_t elements, first;
  uint64_t mixed_key;
  float decay_rate;
  bool vectors;
};
constexpr int64_t kAdamWChunk = 1 << 14;
using AdamWList = TensorList<AdamWEntry, 48, kAdamWChunk>;
static_assert(sizeof(AdamWList) + sizeof(AdamWScalars<float>) + 16 <= kMaxParameterBytes);

// The types a tensor is stored in: weights W, perhaps with an fp32 master, gradients G, moments M.
template <class W, bool HasMaster, class G, class M>
struct Storage {
  using Weight = W;
  using Grad = G;
  using Moment = M;
  using Updated = std::conditional_t<HasMaster, float, W>;  // the weight that is read, changed and written
  static constexpr bool kMaster = HasMaster;
  static constexpr bool kBf16Weight = std::is_same_v<Updated, bf16>;
  static constexpr bool kRounds = kBf16Weight || std::is_same_v<M, bf16>;
  // Elements a thread takes at once: 16 bytes of the widest.
  static constexpr int kWidth = kBf16Weight && std::is_same_v<G, bf16> && std::is_same_v<M, bf16> ? 8 : 4;

  static bool holds(const AdamWTensor& tensor) {
    return is<W>(tensor.weight) && is<G>(tensor.grad) && is<M>(tensor.m) && static_cast<bool>(tensor.master) == kMaster;
  }
  static bool vectors_fit(const AdamWTensor& tensor) {
    const auto aligned = [](const Tensor& t) {
      return reinterpret_cast<uintptr_t>(t.data) % (kWidth * dtype_size(t.dtype)) == 0;
    };
    return aligned(tensor.weight) && aligned(tensor.grad) && aligned(tensor.m) && aligned(tensor.v) &&
           aligned(tensor.master) && (!kRounds || tensor.first % 2 == 0);
  }

 private:
  template <class S>
  static bool is(const Tensor& tensor) {
    return tensor.dtype == (std::is_same_v<S, bf16> ? DType::kBF16 : DType::kF32);
  }
};

// The quotient and the root of the update; where the result is rounded to bf16, within a few fp32 epsilons.
template <bool kFast>
__device__ float quotient(float x, float y) {
  return kFast ? __fdividef(x, y) : x / y;
}
template <bool kFast>
__device__ float root(float x) {
  return kFast ? x * rsqrtf(fmaxf(x, FLT_MIN)) : sqrtf(x);
}

// Updates elements [i, i + kWidth) of a tensor.
template <class T, int kWidth>
__device__ void update(const AdamWEntry& entry, const AdamWScalars<float>& scalars, float scale, int64_t i) {
  using Updated = typename T::Updated;
  using Moment = typename T::Moment;
  auto* weight = static_cast<Updated*>(T::kMaster ? entry.master : entry.weight) + i;
  Moment *first = static_cast<Moment*>(entry.m) + i, *second = static_cast<Moment*>(entry.v) + i;
  const auto grads = load<kWidth>(static_cast<const typename T::Grad*>(entry.grad) + i);
  auto firsts = load<kWidth>(first), seconds = load<kWidth>(second);
  auto weights = load<kWidth>(weight);
  Pack<typename T::Weight, kWidth> nearest;  // of the masters
  uint32_t words[kWidth] = {};
  if constexpr (T::kRounds) rounding_words(entry.mixed_key, entry.first + i, words);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    float m = to_float(firsts.x[j]), v = to_float(seconds.x[j]);
    scalars.update_moments(to_float(grads.x[j]) * scale, m, v);
    const float change = quotient<T::kBf16Weight>(scalars.step_size * m, scalars.denominator(root<T::kBf16Weight>(v)));
    const float w = updated_weight(to_float(weights.x[j]), entry.decay_rate, change);
    set_rounded<kFirstMomentBits>(firsts, j, m, words[j]);
    set_rounded<kSecondMomentBits>(seconds, j, v, words[j]);
    set_rounded<kWeightBits>(weights, j, w, words[j]);
    nearest.x[j] = from_float<typename T::Weight>(w);
  }
  store(first, firsts);
  store(second, seconds);
  store(weight, weights);
  if constexpr (T::kMaster) store(static_cast<typename T::Weight*>(entry.weight) + i, nearest);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    adamw_kernel(const __grid_constant__ AdamWList list, const AdamWScalars<float> scalars, const double* grad_scale) {
  const double wide_scale = *grad_scale;
  if (isnan(wide_scale)) return;
  const auto scale = static_cast<float>(wide_scale);
  const auto [tensor, begin] = list.chunk(blockIdx.x);
  const AdamWEntry& entry = list[tensor];
  const int64_t end = min(entry.elements, begin + kAdamWChunk);
  int64_t rest = begin;
  if (entry.vectors) {
    rest = end - (end - begin) % T::kWidth;
    for (int64_t i = begin + threadIdx.x * T::kWidth; i < rest; i += kThreads * T::kWidth)
      update<T, T::kWidth>(entry, scalars, scale, i);
  }
#pragma unroll 1
  for (int64_t i = rest + threadIdx.x; i < end; i += kThreads) update<T, 1>(entry, scalars, scale, i);
}

AdamWEntry entry_of(const AdamWTensor& tensor, const AdamWStep& args, bool vectors) {
  return {.weight = tensor.weight.data,
          .master = tensor.master.data,
          .m = tensor.m.data,
          .v = tensor.v.data,
          .grad = tensor.grad.data,
          .elements = tensor.weight.elements(),
          .first = tensor.first,
          .mixed_key = mix_key(tensor.key),
          .decay_rate = decay_rate<float>(args, tensor),
          .vectors = vectors};
}

// Takes the step of those tensors that are stored as T says.
template <class T>
void step(Ctx& ctx, std::span<const AdamWTensor> tensors, const AdamWStep& args) {
  const AdamWScalars<float> scalars(args);
  AdamWList list;
  const auto launch = [&] {
    if (list.blocks() == 0) return;
    adamw_kernel<T><<<list.blocks(), kThreads, 0, ctx.gpu->stream()>>>(list, scalars, args.grad_scale.as<double>());
    check_cuda(cudaGetLastError(), "adamw_kernel");
    list.clear();
  };
  for (const AdamWTensor& tensor : tensors) {
    if (!T::holds(tensor) || tensor.weight.elements() == 0) continue;
    if (list.full()) launch();
    list.add(entry_of(tensor, args, T::vectors_fit(tensor)), tensor.weight.elements());
  }
  launch();
}

template <class... T>
void step_each(Ctx& ctx, std::span<const AdamWTensor> tensors, const AdamWStep& args) {
  (step<T>(ctx, tensors, args), ...);
}

}  // namespace

void sum_of_squares(Ctx& ctx, std::span<const Tensor> tensors, const Tensor& sum) {
  const Stack::Frame frame(ctx.stack);
  int64_t blocks = 0;
  for (const Tensor& tensor : tensors) blocks += ceil_div(tensor.elements(), kSquaresChunk);
  const Tensor partial = ctx.stack.push("gradient norm sums", {blocks}, DType::kF64);
  double* to = partial.as<double>();
  SquaresList list;
  const auto launch = [&] {
    if (list.blocks() == 0) return;
    squares_kernel<<<list.blocks(), kThreads, 0, ctx.gpu->stream()>>>(list, to);
    check_cuda(cudaGetLastError(), "squares_kernel");
    to += list.blocks();
    list.clear();
  };
  for (const Tensor& tensor : tensors) {
    if (tensor.elements() == 0) continue;
    if (list.full()) launch();
    list.add({tensor.data, tensor.elements(), tensor.dtype == DType::kBF16,
              reinterpret_cast<uintptr_t>(tensor.data) % 16 == 0},
             tensor.elements());
  }
  launch();
  zero(ctx, sum);
  cuda::add_sum(ctx, partial, sum);
}

void clip_scale(Ctx& ctx, const ClipScale& args) {
  const double* guards = args.guards ? args.guards.as<double>() : nullptr;
  clip_scale_kernel<<<1, kWarp, 0, ctx.gpu->stream()>>>(
      args.squares.as<double>(), guards, guards ? args.guards.elements() : 0, args.max_norm, args.scale.as<double>());
  check_cuda(cudaGetLastError(), "clip_scale_kernel");
}

void adamw(Ctx& ctx, std::span<const AdamWTensor> tensors, const AdamWStep& args) {
  step_each<Storage<float, false, float, float>, Storage<float, false, float, bf16>,  //
            Storage<float, false, bf16, float>, Storage<float, false, bf16, bf16>,    //
            Storage<bf16, true, float, float>, Storage<bf16, true, float, bf16>,      //
            Storage<bf16, true, bf16, float>, Storage<bf16, true, bf16, bf16>,        //
            Storage<bf16, false, float, float>, Storage<bf16, false, float, bf16>,    //
            Storage<bf16, false, bf16, float>, Storage<bf16, false, bf16, bf16>>(ctx, tensors, args);
}

}  // namespace mixtune::cuda
