// The only inline PTX of mixtune: one function per instruction (sm_80 and later).
//
// A lane of a warp is named here by group = lane / 4 and quad = lane % 4, as in the PTX manual's drawings of fragments.
#pragma once

#include <cstdint>

namespace mixtune::cuda::ptx {

// The address of shared memory as instructions take it.
__device__ inline uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// cp.async: copies 16 bytes from global to shared memory, past the registers; where not `valid`, zeros, without reading
// `from`. Both are aligned to 16. Done when a later wait_copies() says so, and seen by others after a barrier.
__device__ inline void copy_async(uint32_t to, const void* from, bool valid = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)),
               "r"(valid ? 16 : 0)
               : "memory");
}
// Makes this thread's copies since the last commit a group.
__device__ inline void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most `Pending` of this thread's groups, the latest ones, are under way.
template <int Pending>
__device__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

// ldmatrix: four 8 x 8 matrices of 16-bit elements. Lane 8 m + r gives the address of row r (16 bytes) of matrix m;
// x[m] gets elements 2 quad and 2 quad + 1 (low and high half) of row `group` of matrix m.
__device__ inline void load_matrices(uint32_t (&x)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(row)
               : "memory");
}
// ldmatrix of the transposed matrices: x[m] gets rows 2 quad and 2 quad + 1 of column `group`.
__device__ inline void load_matrices_transposed(uint32_t (&x)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(row)
               : "memory");
}

// mma.m16n8k16: c += a b in fp32, for a [16, 16] and b [16, 8] of bf16. A register holds two neighbours along k:
//   a[0], a[1]: rows group, group + 8 at k = 2 quad;  a[2], a[3]: the same rows at k = 2 quad + 8
//   b0, b1: column group at k = 2 quad, 2 quad + 8
//   c[0], c[1]: row group, columns 2 quad, 2 quad + 1;  c[2], c[3]: row group + 8
__device__ inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 2^x, within about 2^-22 of it; 0 for results below the normal range and for -infinity.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 1 / x, within 1 ulp of it; 0 for results below the normal range.
__device__ inline float reciprocal_fast(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Of two pairs of bf16 the larger magnitudes, with any sign; a NaN only beside another.
__device__ inline uint32_t larger_magnitudes(uint32_t a, uint32_t b) {
  uint32_t y;
#if __CUDA_ARCH__ >= 860
  asm("max.xorsign.abs.bf16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
#else
  asm("max.bf16x2 %0, %1, %2;" : "=r"(y) : "r"(a & 0x7FFF7FFF), "r"(b & 0x7FFF7FFF));
#endif
  return y;
}

// Products of two pairs of bf16, rounded to bf16.
__device__ inline uint32_t multiply_pairs(uint32_t a, uint32_t b) {
  constexpr uint32_t kMinusZeros = 0x80008000;
  uint32_t y;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "r"(kMinusZeros));
  return y;
}

}  // namespace mixtune::cuda::ptx
