// Pieces of the attention kernels for tensor cores: tiles of bf16 in shared memory, products of a warp's rows with a
// tile, masks, and the way back to global memory.
//
// A warp owns 16 M consecutive rows of a block's tile. Its results are fragments acc[m][n][c]: row
// 16 m + lane / 4 + 8 (c / 2), column 8 n + 2 (lane % 4) + c % 2. A tile has rows of D elements; its chunks of 16 bytes
// are permuted within a row by the row's number, so that the 8 rows of a matrix are read from different banks.
#pragma once

#include <cmath>

#include "kernels/attention/attention_flash.cuh"
#include "kernels/ptx.cuh"

namespace mixtune::cuda {

constexpr int kMmaWarps = 4, kMmaThreads = kMmaWarps * kWarp;
constexpr float kLog2e = 1.4426950408889634f;

template <int D>
constexpr int kTileRowBytes = D * 2;
template <int Rows, int D>
constexpr int kTileBytes = Rows* kTileRowBytes<D>;

template <int D>
__device__ int chunk_offset(int row, int chunk) {
  return row * kTileRowBytes<D> + ((chunk ^ (row % 8)) * 16);
}

// Copies rows of a head into tiles: zeros for dead rows and for columns past head_dim.
template <int D>
class TileCopy {
 public:
  __device__ TileCopy(const HeadRows<const bf16>& head, const FlashShape& shape) : stride_(head.stride) {
    const int row = static_cast<int>(threadIdx.x) / kChunks, chunk = static_cast<int>(threadIdx.x) % kChunks;
    from_ = head.row(row) + chunk * 8;
    to_ = chunk_offset<D>(row, chunk);
    live_ = chunk * 8 < shape.head_dim ? shape.live_rows - row : 0;
  }

  // Starts copying rows [row0, row0 + Rows) of the head that lies `columns` further on.
  template <int Rows>
  __device__ void start(uint32_t tile, int32_t row0, int32_t columns = 0) const {
    static_assert(Rows % kRowsAtOnce == 0);
    const bf16* from = from_ + (int64_t{row0} * stride_ + columns);
#pragma unroll
    for (int r = 0; r < Rows; r += kRowsAtOnce)
      ptx::copy_async(tile + to_ + r * kTileRowBytes<D>, from + r * stride_, row0 + r < live_);
  }

 private:
  static constexpr int kChunks = D / 8, kRowsAtOnce = kMmaThreads / kChunks;
  static_assert(kRowsAtOnce % 8 == 0);  // a thread's chunks have one place in their rows
  const bf16* from_;                    // this thread's first chunk
  int32_t stride_, to_, live_;
};

// The address that a lane gives to ldmatrix for the 16 x 16 elements at a tile's origin. By rows, the four matrices are
// (rows 0-7, columns 0-7), (8-15, 0-7), (0-7, 8-15), (8-15, 8-15): an a of mma, or transposed the b of two mmas whose
// columns are the tile's. By columns, the middle two are swapped: the b of two mmas whose columns are the tile's rows.
template <int D>
__device__ uint32_t lane_by_rows(uint32_t tile) {
  const int lane = threadIdx.x % kWarp;
  return tile + chunk_offset<D>(lane % 16, lane / 16);
}
template <int D>
__device__ uint32_t lane_by_columns(uint32_t tile) {
  const int lane = threadIdx.x % kWarp;
  return tile + chunk_offset<D>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
}
// Moves that address to the elements at (row, column), multiples of 16; the tile is aligned to its row.
template <int D>
__device__ uint32_t lane_at(uint32_t lane_address, int row, int column) {
  return (lane_address ^ (column * 2)) + row * kTileRowBytes<D>;
}

template <int M, int N>
__device__ void clear(float (&acc)[M][N][4]) {
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int c = 0; c < 4; ++c) acc[m][n][c] = 0;
}

// acc = rows . rows of b over D: `a` is by rows, at the warp's rows; `b` is by columns, 8 N rows.
template <int M, int N, int D>
__device__ void multiply_rows(float (&acc)[M][N][4], uint32_t a, uint32_t b) {
  clear(acc);
#pragma unroll
  for (int d = 0; d < D; d += 16) {
    uint32_t x[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m) ptx::load_matrices(x[m], lane_at<D>(a, 16 * m, d));
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      uint32_t y[4];
      ptx::load_matrices(y, lane_at<D>(b, 8 * n, d));
#pragma unroll
      for (int m = 0; m < M; ++m) {
        ptx::multiply(acc[m][n], x[m], y[0], y[1]);
        ptx::multiply(acc[m][n + 1], x[m], y[2], y[3]);
      }
    }
  }
}

// acc += p b: `p` is pack_rows' of 16 K columns; `b` is by rows, 16 K rows of D.
template <int M, int K, int D>
__device__ void multiply_columns(float (&acc)[M][D / 8][4], const uint32_t (&p)[M][K][4], uint32_t b) {
#pragma unroll
  for (int k = 0; k < K; ++k)
#pragma unroll
    for (int n = 0; n < D / 8; n += 2) {
      uint32_t y[4];
      ptx::load_matrices_transposed(y, lane_at<D>(b, 16 * k, 8 * n));
#pragma unroll
      for (int m = 0; m < M; ++m) {
        ptx::multiply(acc[m][n], p[m][k], y[0], y[1]);
        ptx::multiply(acc[m][n + 1], p[m][k], y[2], y[3]);
      }
    }
}

__device__ inline uint32_t pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}

// Rounds a product's results to bf16, as the `a` of the next: fragments 2 k and 2 k + 1 become p[m][k].
template <int M, int N>
__device__ void pack_rows(uint32_t (&p)[M][N / 2][4], const float (&s)[M][N][4]) {
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int n = 0; n < N; ++n) {
      p[m][n / 2][n % 2 * 2] = pack(s[m][n][0], s[m][n][1]);
      p[m][n / 2][n % 2 * 2 + 1] = pack(s[m][n][2], s[m][n][3]);
    }
}

// The columns that a warp's rows see of the tiles that its block goes through.
struct WarpView {
  int32_t row0;
  Interval any, all;  // columns that some row sees; those that every row sees

  template <class Sees>
  __device__ WarpView(const Sees& sees, int32_t row, int32_t rows) : row0(row) {
    const Interval first = sees(row), last = sees(row + rows - 1);
    any = {first.begin, last.end};
    all = {last.begin, first.end};
  }
  __device__ bool sees(int32_t column0, int columns) const {
    return column0 < any.end && column0 + columns > any.begin;
  }
  __device__ bool sees_all(int32_t column0, int columns) const {
    return column0 >= all.begin && column0 + columns <= all.end;
  }
};

// Sets the scores that a row does not see to -infinity.
template <int M, int N, class Sees>
__device__ void mask_scores(float (&s)[M][N][4], const WarpView& view, const Sees& sees, int32_t column0) {
  if (view.sees_all(column0, 8 * N)) return;
  const int lane = threadIdx.x % kWarp;
  const int32_t column = column0 + lane % 4 * 2;
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Interval seen = sees(view.row0 + 16 * m + 8 * half + lane / 4);
      const Interval ahead = {seen.begin - column, seen.end - column};  // to be compared with constants
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          if (!ahead.contains(8 * n + e)) s[m][n][2 * half + e] = -INFINITY;
    }
}

// Writes a warp's rows acc * factor as bf16, zeros in dead rows included. `staging` is 16 M rows of a tile that this
// warp alone reads.
template <int M, int D>
__device__ void store_rows(unsigned char* staging, const float (&acc)[M][D / 8][4], float factor,
                           const HeadRows<bf16>& head, int32_t row0, const FlashShape& shape) {
  constexpr int kChunks = D / 8;
  const int lane = threadIdx.x % kWarp;
  __syncwarp();
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int n = 0; n < D / 8; ++n)
        *reinterpret_cast<uint32_t*>(staging + chunk_offset<D>(16 * m + 8 * half + lane / 4, n) + lane % 4 * 4) =
            pack(acc[m][n][2 * half] * factor, acc[m][n][2 * half + 1] * factor);
  __syncwarp();
  const int chunk = lane % kChunks;
  if (chunk * 8 >= shape.head_dim) return;
#pragma unroll
  for (int r = lane / kChunks; r < 16 * M; r += kWarp / kChunks)
    if (row0 + r < shape.rows)
      *reinterpret_cast<uint4*>(head.row(row0 + r) + chunk * 8) =
          *reinterpret_cast<const uint4*>(staging + chunk_offset<D>(r, chunk));
}

}  // namespace mixtune::cuda
