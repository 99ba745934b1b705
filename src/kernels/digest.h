// digest: sums of bits, by which ranks compare what they hold without sending it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensor/ctx.h"

namespace mixtune {

// digests [n] int64: for tensors[t], whose bytes are 32-bit words w_i (a half word at the end is filled with zeros),
// the sum over i of mix_bits(w_i + (i + 1) * 0x9E3779B97F4A7C15) modulo 2^64 (base/random.h). mix_bits is a bijection,
// so a change of one word always changes the digest, any other with a probability of 1 - 2^-64. Sums of integers are
// exact, so the digest does not depend on order, threads or device. Elements have 2, 4 or 8 bytes, and are aligned to
// 4. Each byte is read once: on a GPU about as fast as a copy reads, a second for some TB.
void digest(Ctx& ctx, std::span<const Tensor> tensors, const Tensor& digests);

// The same, for the host: waits for the device.
std::vector<int64_t> read_digests(Ctx& ctx, std::span<const Tensor> tensors);

}  // namespace mixtune
