// Pieces of the attention kernels for CUDA cores: exact fp32 for any head_dim.
//
// A block has 64 rows of one side and goes through tiles of 64 rows of the other. Its 16 x 16 threads own elements
// (y + 16 r, x + 16 c) of a tile's scores and of the results. Rows come into shared memory 32 columns at a time.
#pragma once

#include "kernels/attention/attention_flash.cuh"

namespace mixtune::cuda {

constexpr int kSimtTile = 64, kSimtSide = 16, kSimtThreads = kSimtSide * kSimtSide, kSimtMicro = kSimtTile / kSimtSide;
constexpr int kSimtChunk = 32;

struct alignas(16) SimtShared {
  // Rows are padded so that 8 lanes' float4 of 8 rows, or two rows' 16 floats, lie in different banks.
  float a[kSimtTile][kSimtChunk + 4], b[kSimtTile][kSimtChunk + 4];
  float scores[kSimtTile][kSimtTile + 16];
};

using SimtScores = float[kSimtMicro][kSimtMicro];
template <int D>
using SimtResult = float[kSimtMicro][D / kSimtSide];

struct SimtThread {
  int y = static_cast<int>(threadIdx.x) / kSimtSide, x = static_cast<int>(threadIdx.x) % kSimtSide;
};

// Loads columns [column0, column0 + 32) of a head's rows [row0, row0 + 64): zeros for dead rows and past head_dim.
template <class S>
__device__ void simt_load(float (&to)[kSimtTile][kSimtChunk + 4], const HeadRows<const S>& head, int32_t row0,
                          int column0, const FlashShape& shape) {
  const int column = static_cast<int>(threadIdx.x) % kSimtChunk;
#pragma unroll
  for (int r = static_cast<int>(threadIdx.x) / kSimtChunk; r < kSimtTile; r += kSimtThreads / kSimtChunk) {
    const bool valid = row0 + r < shape.live_rows && column0 + column < shape.head_dim;
    to[r][column] = valid ? to_float(head.row(row0 + r)[column0 + column]) : 0.0f;
  }
}

// scores = rows of a . rows of b.
template <class S>
__device__ void simt_multiply_rows(SimtScores& scores, SimtShared& shared, const HeadRows<const S>& a, int32_t a0,
                                   const HeadRows<const S>& b, int32_t b0, const FlashShape& shape) {
  const SimtThread thread;
#pragma unroll
  for (int r = 0; r < kSimtMicro; ++r)
#pragma unroll
    for (int c = 0; c < kSimtMicro; ++c) scores[r][c] = 0;
  for (int d0 = 0; d0 < shape.head_dim; d0 += kSimtChunk) {
    __syncthreads();
    simt_load<S>(shared.a, a, a0, d0, shape);
    simt_load<S>(shared.b, b, b0, d0, shape);
    __syncthreads();
#pragma unroll
    for (int d = 0; d < kSimtChunk; d += 4) {
      float4 p[kSimtMicro], q[kSimtMicro];
#pragma unroll
      for (int i = 0; i < kSimtMicro; ++i) {
        p[i] = *reinterpret_cast<const float4*>(&shared.a[thread.y + kSimtSide * i][d]);
        q[i] = *reinterpret_cast<const float4*>(&shared.b[thread.x + kSimtSide * i][d]);
      }
#pragma unroll
      for (int r = 0; r < kSimtMicro; ++r)
#pragma unroll
        for (int c = 0; c < kSimtMicro; ++c) {
          scores[r][c] = fmaf(p[r].x, q[c].x, scores[r][c]);
          scores[r][c] = fmaf(p[r].y, q[c].y, scores[r][c]);
          scores[r][c] = fmaf(p[r].z, q[c].z, scores[r][c]);
          scores[r][c] = fmaf(p[r].w, q[c].w, scores[r][c]);
        }
    }
  }
}

// Adds scores b to acc, through shared memory.
template <class S, int D>
__device__ void simt_multiply_columns(SimtResult<D>& acc, SimtShared& shared, const SimtScores& scores,
                                      const HeadRows<const S>& b, int32_t b0, const FlashShape& shape) {
  const SimtThread thread;
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kSimtMicro; ++r)
#pragma unroll
    for (int c = 0; c < kSimtMicro; ++c)
      shared.scores[thread.y + kSimtSide * r][thread.x + kSimtSide * c] = scores[r][c];
#pragma unroll
  for (int chunk = 0; chunk < D / kSimtChunk; ++chunk) {
    if (chunk * kSimtChunk >= shape.head_dim) break;
    __syncthreads();
    simt_load<S>(shared.b, b, b0, chunk * kSimtChunk, shape);
    __syncthreads();
#pragma unroll 4
    for (int j = 0; j < kSimtTile; j += 4) {
      float4 p[kSimtMicro];
#pragma unroll
      for (int r = 0; r < kSimtMicro; ++r)
        p[r] = *reinterpret_cast<const float4*>(&shared.scores[thread.y + kSimtSide * r][j]);
#pragma unroll
      for (int e = 0; e < kSimtChunk / kSimtSide; ++e) {
        const int column = thread.x + kSimtSide * e, c = chunk * (kSimtChunk / kSimtSide) + e;
        const float v0 = shared.b[j][column], v1 = shared.b[j + 1][column];
        const float v2 = shared.b[j + 2][column], v3 = shared.b[j + 3][column];
#pragma unroll
        for (int r = 0; r < kSimtMicro; ++r) {
          acc[r][c] = fmaf(p[r].x, v0, acc[r][c]);
          acc[r][c] = fmaf(p[r].y, v1, acc[r][c]);
          acc[r][c] = fmaf(p[r].z, v2, acc[r][c]);
          acc[r][c] = fmaf(p[r].w, v3, acc[r][c]);
        }
      }
    }
  }
}

// The maximum over the 16 threads of a row.
__device__ inline float simt_row_max(float x) {
#pragma unroll
  for (int lane = kSimtSide / 2; lane > 0; lane /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, lane));
  return x;
}
__device__ inline float simt_row_sum(float x) {
#pragma unroll
  for (int lane = kSimtSide / 2; lane > 0; lane /= 2) x += __shfl_xor_sync(~0u, x, lane);
  return x;
}

// Writes acc, zeros in dead rows included.
template <class S, int D>
__device__ void simt_store(const SimtResult<D>& acc, const HeadRows<S>& head, int32_t row0, const FlashShape& shape) {
  const SimtThread thread;
#pragma unroll
  for (int r = 0; r < kSimtMicro; ++r) {
    const int32_t row = row0 + thread.y + kSimtSide * r;
    if (row >= shape.rows) continue;
#pragma unroll
    for (int c = 0; c < D / kSimtSide; ++c) {
      const int column = thread.x + kSimtSide * c;
      if (column < shape.head_dim) head.row(row)[column] = from_float<S>(acc[r][c]);
    }
  }
}

}  // namespace mixtune::cuda
