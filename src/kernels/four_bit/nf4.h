// NF4: weights in 4 bits, as QLoRA (arXiv 2305.14314) defines them and bitsandbytes computes and stores them.
//
// A tensor's elements, in their order, are divided into blocks. A block's absmax is its largest magnitude, and an
// element the nearest of 16 values times it. Doubly quantised, absmax themselves are codes of 8 bits: less their mean,
// in blocks of 256. A tensor is one of Hugging Face's: which elements share statistics depends on no layout.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "tensor/ctx.h"

namespace mixtune {

constexpr int64_t kNf4Block = 64, kNestedBlock = 256;

// The quantiles of a normal distribution that codes stand for.
inline constexpr std::array<float, 16> kNf4Values = {
    -1.0F,
    -0.6961928009986877F,
    -0.5250730514526367F,
    -0.39491748809814453F,
    -0.28444138169288635F,
    -0.18477343022823334F,
    -0.09105003625154495F,
    0.0F,
    0.07958029955625534F,
    0.16093020141124725F,
    0.24611230194568634F,
    0.33791524171829224F,
    0.44070982933044434F,
    0.5626170039176941F,
    0.7229568362236023F,
    1.0F,
};

// What codes of absmax stand for, in their order: from -0.993 to 1, finer near 0. For k in 0..6 the middles of 2^k
// equal parts of [0.1, 1], times 10^(k - 6), of either sign; 0; and 1.
const std::array<float, 256>& dynamic_map();

// The parts of a quantised tensor, or of a stretch of it. absmax of block b is nested_map[absmax[b]] *
// nested_absmax[b / 256] + offset, rounded after the product and after the sum; or absmax[b], of fp32.
struct Nf4Tensor {
  int64_t elements = 0;
  int64_t block = kNf4Block;  // a power of two, from 32 on
  int64_t first = 0;          // the element that codes and absmax begin with, a multiple of block

  Tensor codes;               // u8 [ceil(elements / 2)]: of element 2i in the upper half of a byte
  Tensor absmax;              // u8, or fp32 where that is all, [ceil(elements / block)]
  Tensor nested_absmax = {};  // fp32 [ceil(blocks of the whole tensor / 256)]; empty: absmax are not quantised
  Tensor nested_map = {};     // fp32 [256]
  Tensor offset = {};         // fp32 [1]

  bool is_nested() const { return static_cast<bool>(nested_absmax); }
  int64_t blocks() const { return (elements + block - 1) / block; }
  int64_t nested_blocks() const { return (first / block + blocks() + kNestedBlock - 1) / kNestedBlock; }
};

// The bytes of a tensor with so many elements, in blocks of kNf4Block: of all parts but nested_map, the same for all.
int64_t nf4_bytes(int64_t elements, bool nested);

// Fills `to` [elements], of any shape, with value * absmax in fp32, rounded to `through` and then to its own type: fp32
// or fp64 on the CPU, bf16 on a GPU. Bit-equal to bitsandbytes' dequantize_4bit of a tensor whose type is `through`.
struct Nf4Dequantise {
  Nf4Tensor from;
  Tensor to;
  DType through = DType::kBF16;  // fp32, bf16 or fp16
};
// All tensors of a list: on a GPU in as few launches as their descriptors fit into.
void nf4_dequantise(Ctx& ctx, std::span<const Nf4Dequantise> tensors);

// Fills to[elements] with value * absmax, in fp32 and no more rounded; all is in host memory.
void nf4_values(const Nf4Tensor& from, float* to);

// Fills all parts of `to` but nested_map with `x` [elements], of any shape, that holds no NaN or infinity. nested_map
// is read. x / absmax becomes the code of the nearest value, the lower of two. Codes and fp32 absmax are bit-equal to
// those of bitsandbytes' quantize_4bit on the CPU. Doubly quantised absmax need not be: the offset is the mean rounded
// once, theirs a sum in fp32 in an order that depends on the processor; and their CPU finds codes of absmax in a table,
// by the quotient rounded to a 65535th of [-1, 1], which here becomes the code of the nearest value as it is.
// Zeros become code 7, which is 0 again whatever the block's absmax, also in a block of zeros alone.
struct Nf4Quantise {
  Tensor x;  // fp32 or fp64 on the CPU (as fp32), bf16 on a GPU
  Nf4Tensor to;
};
void nf4_quantise(Ctx& ctx, const Nf4Quantise& args);

}  // namespace mixtune
