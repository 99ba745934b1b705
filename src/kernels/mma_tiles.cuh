// Tiles of bf16 in shared memory, and mma.m16n8k16 of them: what kernels share that multiply thin matrices. Rows of
// tiles are 16 bytes longer than their data: so ldmatrix meets each bank once.
#pragma once

#include "kernels/cuda_math.cuh"
#include "kernels/gemm/thin_gemm.h"
#include "kernels/ptx.cuh"

namespace mixtune::cuda {

constexpr int kVectorElements = 8;  // of 16 bytes

// A matrix in global memory, of rows that are `pitch` apart; beyond it zeros are read.
struct Matrix {
  const bf16* data;
  int rows, columns;
  int64_t pitch = columns;
};
inline Matrix matrix_of(const Tensor& tensor) {
  return {elements<bf16>(tensor), static_cast<int>(tensor.rows()), static_cast<int>(tensor.shape[1])};
}

// The rows [begin, end) of each group, its gap among them.
struct ThinGroups {
  int size;
  int begin[kThinGroups], end[kThinGroups];

  // `size` where it is in none.
  __device__ int of_row(int row) const {
    int e = 0;
    while (e < size && !(begin[e] <= row && row < end[e])) ++e;
    return e;
  }
};
inline ThinGroups thin_groups(const RowGroups& rows) {
  MT_CHECK(rows.groups <= kThinGroups);
  ThinGroups groups = {static_cast<int>(rows.groups), {}, {}};
  for (int64_t e = 0; e < rows.groups; ++e) {
    if (rows.count[e] == 0) continue;
    groups.begin[e] = rows.begin[e];
    groups.end[e] = static_cast<int>(rows.begin[e] + align_rows(rows.count[e]));
  }
  return groups;
}

// Tiles of kRows x kColumns bf16 in shared memory.
template <int kRows, int kColumns>
struct Tile {
  static constexpr int kRowBytes = kColumns * 2 + 16, kBytes = kRows * kRowBytes;

  template <int kThreads>
  static __device__ void load(uint32_t to, const Matrix& from, int row, int column) {
    constexpr int kVectors = kColumns / kVectorElements;
#pragma unroll
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kVectors; i += kThreads) {
      const int r = i / kVectors, c = i % kVectors * kVectorElements;
      const bool valid = row + r < from.rows && column + c < from.columns;
      const bf16* source = from.data + (valid ? (row + r) * from.pitch + column + c : 0);
      ptx::copy_async(to + r * kRowBytes + c * 2, source, valid);
    }
  }
  static __device__ uint32_t at(uint32_t tile, int row, int column) {
    return tile + row * kRowBytes + column * 2;
  }
};

// A lane's place in the four matrices that ldmatrix loads: of each the row, and which of the four.
struct LanePlace {
  int row = static_cast<int>(threadIdx.x) % 8, first = static_cast<int>(threadIdx.x) / 8 % 2 * 8,
      second = static_cast<int>(threadIdx.x) / 16 % 2 * 8;
};

// c [16, 8 kTiles] += a [16, 16] b, at k of the tiles in shared memory: a [m, k] or transposed [k, m], b [k, n] or
// transposed [n, k].
template <class T, bool kTransposed>
__device__ void load_left(uint32_t (&a)[4], uint32_t tile, int m, int k) {
  const LanePlace lane;
  if constexpr (kTransposed)
    ptx::load_matrices_transposed(a, T::at(tile, k + lane.second + lane.row, m + lane.first));
  else
    ptx::load_matrices(a, T::at(tile, m + lane.first + lane.row, k + lane.second));
}
template <class T, bool kTransposed, int kTiles>
__device__ void multiply_right(float (&c)[kTiles][4], const uint32_t (&a)[4], uint32_t tile, int k) {
  const LanePlace lane;
#pragma unroll
  for (int n = 0; n < kTiles; n += 2) {
    uint32_t b[4];  // of two tiles of 8 columns
    if constexpr (kTransposed)
      ptx::load_matrices(b, T::at(tile, n * 8 + lane.second + lane.row, k + lane.first));
    else
      ptx::load_matrices_transposed(b, T::at(tile, k + lane.first + lane.row, n * 8 + lane.second));
    ptx::multiply(c[n], a, b[0], b[1]);
    ptx::multiply(c[n + 1], a, b[2], b[3]);
  }
}

// Runs load(stage, step) some steps ahead of use(stage, step).
template <int kStages, class Load, class Use>
__device__ void pipeline(int steps, const Load& load, const Use& use) {
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < steps) load(s, s);
    ptx::commit_copies();
  }
  for (int s = 0; s < steps; ++s) {
    ptx::wait_copies<kStages - 2>();
    __syncthreads();
    if (const int next = s + kStages - 1; next < steps) load(next % kStages, next);
    ptx::commit_copies();
    use(s % kStages, s);
  }
}

// Whether a block may have so much shared memory; then the kernel may.
template <class Kernel>
bool allow_shared_memory(const Ctx& ctx, Kernel* kernel, int bytes) {
  int most = 0;
  check_cuda(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, ctx.device.index), "shared memory");
  if (bytes > most) return false;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "shared memory");
  return true;
}

}  // namespace mixtune::cuda
