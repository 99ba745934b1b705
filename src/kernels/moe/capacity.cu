// Which pairs get a row. A block decides for an expert: it finds the weight at which its rows end by their bits, from
// the highest digit down, then goes through its pairs in their order.
#include <cstdint>
#include <limits>

#include "kernels/cuda_pack.cuh"
#include "kernels/moe/cuda_ops.h"

namespace mixtune::cuda {

namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarp;
static_assert(kWarps == kWarp);
constexpr int kDigitBits = 8, kBins = 1 << kDigitBits, kLaneBins = kBins / kWarp;

// An expert's pairs, as all threads of a block go through them. Keys are in the order of weights, which are not
// negative; all are the same without weights.
struct Pairs {
  const int32_t* __restrict__ experts;
  const float* __restrict__ weights;
  int64_t count;

  // use(pair, its expert, key) for each pair, -1 as the expert past the end; pairs of a round are consecutive.
  template <class Use>
  __device__ void for_each(int32_t mine, const Use& use) const {
#pragma unroll 4
    for (int64_t first = 0; first < count; first += kThreads) {
      const int64_t pair = first + threadIdx.x;
      const int32_t expert = pair < count ? experts[pair] : -1;
      use(pair, expert, weights != nullptr && expert == mine ? __float_as_uint(weights[pair]) : 0u);
    }
  }
};

// Keys above `key` are kept, and the first `equal` that are equal to it.
struct Threshold {
  uint32_t key;
  int32_t equal;
};
constexpr int32_t kAll = std::numeric_limits<int32_t>::max();

__device__ uint32_t lower_lanes() {
  return (1u << threadIdx.x % kWarp) - 1;
}

// bins[d] = the expert's keys whose bits under `mask` are `prefix`, and whose next digit is d.
__device__ void count_digits(const Pairs& pairs, int32_t mine, uint32_t prefix, uint32_t mask, int shift,
                             uint32_t (&bins)[kBins]) {
  for (int i = threadIdx.x; i < kBins; i += kThreads) bins[i] = 0;
  __syncthreads();
  pairs.for_each(mine, [&](int64_t, int32_t expert, uint32_t key) {
    const int digit = expert == mine && (key & mask) == prefix ? static_cast<int>(key >> shift & (kBins - 1)) : -1;
    const uint32_t same = __match_any_sync(~0u, digit);
    if (digit >= 0 && (same & lower_lanes()) == 0) atomicAdd(&bins[digit], static_cast<uint32_t>(__popc(same)));
  });
  __syncthreads();
}

// With all lanes of a warp: the digit of the `wanted`-th largest key, by the one lane that finds it, with how many of
// that digit are wanted. No lane finds it where there are fewer keys.
template <class Found>
__device__ void find_digit(const uint32_t (&bins)[kBins], int32_t wanted, const Found& found) {
  const int lane = threadIdx.x % kWarp, highest = kBins - 1 - lane * kLaneBins;
  int32_t own = 0;
#pragma unroll
  for (int i = 0; i < kLaneBins; ++i) own += static_cast<int32_t>(bins[highest - i]);
  int32_t sum = own;
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int32_t left = __shfl_up_sync(~0u, sum, distance);
    if (lane >= distance) sum += left;
  }
  int32_t before = sum - own;
  if (before >= wanted || sum < wanted) return;
  int digit = highest;
  while (before + static_cast<int32_t>(bins[digit]) < wanted) before += static_cast<int32_t>(bins[digit--]);
  found(digit, wanted - before);
}

// Of the `most` largest keys of the expert.
__device__ Threshold find_threshold(const Pairs& pairs, int32_t mine, int32_t most) {
  __shared__ uint32_t bins[kBins];
  __shared__ Threshold next;
  if (pairs.weights == nullptr) return {0, most};
  if (threadIdx.x == 0) next = {0, kAll};  // where there are no more keys than that
  Threshold threshold = {0, most};
  uint32_t mask = 0;
  for (int shift = 32 - kDigitBits; shift >= 0; shift -= kDigitBits) {
    count_digits(pairs, mine, threshold.key, mask, shift, bins);
    if (threadIdx.x < kWarp)
      find_digit(bins, threshold.equal, [&](int digit, int32_t wanted) {
        next = {threshold.key | static_cast<uint32_t>(digit) << shift, wanted};
      });
    __syncthreads();
    threshold = next;
    if (threshold.equal == kAll) break;
    mask |= static_cast<uint32_t>(kBins - 1) << shift;
  }
  return threshold;
}

// Ranks the threads of a block that a flag is set for, round after round.
class Ranks {
 public:
  // How many flags were set before, in earlier rounds and by lower threads. All threads call it.
  __device__ int32_t next(bool flag) {
    __shared__ int32_t warps[2][kWarps];  // of this round, and of that which other warps may still read
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const uint32_t set = __ballot_sync(~0u, flag);
    if (lane == 0) warps[round_][warp] = __popc(set);
    __syncthreads();
    const int32_t other = warps[round_][lane];
    const int32_t rank = before_ + __reduce_add_sync(~0u, lane < warp ? other : 0) + __popc(set & lower_lanes());
    before_ += __reduce_add_sync(~0u, other);
    round_ ^= 1;
    return rank;
  }

 private:
  int32_t before_ = 0;
  int round_ = 0;
};

__global__ void __launch_bounds__(kThreads) drop_kernel(Pairs pairs, int32_t most, int32_t* __restrict__ sent) {
  const auto mine = static_cast<int32_t>(blockIdx.x);
  const Threshold threshold = find_threshold(pairs, mine, most);
  Ranks equals;
  pairs.for_each(mine, [&](int64_t pair, int32_t expert, uint32_t key) {
    const bool equal = expert == mine && key == threshold.key;
    const int32_t rank = equals.next(equal);
    if (expert == mine) sent[pair] = key > threshold.key || (equal && rank < threshold.equal) ? mine : -1;
    if (mine == 0 && expert < 0 && pair < pairs.count) sent[pair] = -1;
  });
}

// One block, which adds to what the stream has there.
__global__ void __launch_bounds__(kThreads)
    count_kernel(const int32_t* __restrict__ experts, const int32_t* __restrict__ sent, int64_t tokens, int k,
                 double* __restrict__ dropped) {
  int32_t lost_pairs = 0, lost_tokens = 0;
  for (int64_t first = 0; first < tokens; first += kThreads) {
    const int64_t t = first + threadIdx.x;
    bool lost_all = t < tokens;
    for (int slot = 0; slot < k; ++slot) {
      const bool lost = t < tokens && experts[t * k + slot] >= 0 && sent[t * k + slot] < 0;
      lost_all = lost_all && lost;
      lost_pairs += __syncthreads_count(lost);
    }
    lost_tokens += __syncthreads_count(lost_all);
  }
  if (threadIdx.x > 0) return;
  dropped[0] += lost_pairs;
  dropped[1] += lost_tokens;
}

}  // namespace

void drop_pairs(Ctx& ctx, const DropPairs& args) {
  const int64_t tokens = args.experts.rows(), k = args.experts.shape[1];
  if (tokens == 0) return;
  const cudaStream_t stream = ctx.gpu->stream();
  const bool by_weight = args.policy == TokenDropPolicy::kProbs;
  const Pairs pairs = {args.experts.as<int32_t>(), by_weight ? args.weights.as<float>() : nullptr, tokens * k};
  drop_kernel<<<static_cast<unsigned>(args.all_experts), kThreads, 0, stream>>>(pairs, static_cast<int32_t>(args.most),
                                                                                args.sent.as<int32_t>());
  check_cuda(cudaGetLastError(), "drop_kernel");
  if (!args.dropped) return;
  count_kernel<<<1, kThreads, 0, stream>>>(args.experts.as<int32_t>(), args.sent.as<int32_t>(), tokens,
                                           static_cast<int>(k), args.dropped.as<double>());
  check_cuda(cudaGetLastError(), "count_kernel");
}

}  // namespace mixtune::cuda
