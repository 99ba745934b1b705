// digest: the same 64 bits on both sides.
#include <fmt/format.h>

#include <vector>

#include "conformance/cases.h"
#include "kernels/cast.h"
#include "kernels/digest.h"
#include "kernels/digest_math.h"

namespace mixtune {

namespace {

// The operand as the GPU stores it: on the CPU floats are fp32, and their cast is exact.
Tensor stored(Ctx& ctx, const Operand& operand, Side side, DType dtype) {
  const Tensor wide = operand[side];
  if (wide.dtype == dtype) return wide;
  const Tensor narrow = ctx.stack.push("operand in its storage", wide.shape, dtype);
  cast(ctx, wide, narrow);
  return narrow;
}

// Digests tensors of these sizes, from element `offset` on.
void digest_case(Conformance& c, const std::vector<int64_t>& sizes, int64_t offset) {
  std::vector<Operand> x;
  for (const int64_t n : sizes) x.push_back(c.random(fmt::format("x{}", x.size()), {n + offset}));
  const Operand digests = c.output("digests", {static_cast<int64_t>(sizes.size())}, DType::kI64);
  c.run([&](Ctx& ctx, Side side) {
    const Frame frame(ctx);
    std::vector<Tensor> tensors;
    for (size_t i = 0; i < x.size(); ++i) tensors.push_back(stored(ctx, x[i], side, c.dtype()).slice(offset, sizes[i]));
    digest(ctx, tensors, digests[side]);
  });
  c.expect_equal(digests);
}

// Flips one bit of 300,000 elements, on the GPU alone: the digest must be another.
void flipped_bit_case(Conformance& c) {
  constexpr int64_t kElements = 300'000, kFlipped = 271'828;
  const Operand x = c.random("x", {kElements});
  const Operand before = c.output("before", {1}, DType::kI64), after = c.output("after", {1}, DType::kI64);
  const Operand differ = c.output("differ", {1}, DType::kI32);
  c.run([&](Ctx& ctx, Side side) {
    const Frame frame(ctx);
    const Tensor mine = stored(ctx, x, side, c.dtype());
    const Tensor copied = ctx.stack.push("copy", mine.shape, mine.dtype);
    copy(ctx, mine, copied);
    digest(ctx, std::vector{copied}, before[side]);
    const Tensor element = copied.slice(kFlipped, 1);
    std::vector<uint8_t> bytes(element.bytes());
    const Tensor here = host_tensor(bytes.data(), {static_cast<int64_t>(bytes.size())});
    const Tensor there = {element.data, here.shape, DType::kU8, element.device};
    copy(ctx, there, here);
    wait(ctx);
    bytes[0] ^= 1;
    copy(ctx, here, there);
    digest(ctx, std::vector{copied}, after[side]);
    int64_t values[2];
    copy(ctx, before[side], host_tensor(&values[0], {1}));
    copy(ctx, after[side], host_tensor(&values[1], {1}));
    wait(ctx);
    const int32_t result = values[0] != values[1];
    copy(ctx, host_tensor(&result, {1}), differ[side]);
    wait(ctx);
  });
  c.expect_equal(before);
  c.expect_equal(after);
  c.expect_equal(differ);
}

// Zeros past 2^31 elements, and a tail: 4 GiB (bf16) or 8 GiB (fp32) of the GPU's memory. The CPU has the zeros' words
// without their memory.
void digest_long_case(Conformance& c) {
  constexpr int64_t kLong = (int64_t{1} << 31) + 70002, kTail = 1000;
  const Operand tail = c.random("tail", {kTail}), digests = c.output("digests", {1}, DType::kI64);
  c.run([&](Ctx& ctx, Side side) {
    const Frame frame(ctx);
    const Tensor end = stored(ctx, tail, side, c.dtype());
    if (side == Side::kGpu) {
      const Tensor x = ctx.stack.push("x", {kLong}, c.dtype());
      zero(ctx, x);
      copy(ctx, end, x.slice(kLong - kTail, kTail));
      return digest(ctx, std::vector{x}, digests[side]);
    }
    const auto words = static_cast<int64_t>(end.bytes() / 4),
               zeros = (kLong - kTail) * static_cast<int64_t>(dtype_size(c.dtype())) / 4;
    uint64_t sum = 0;
#pragma omp parallel for reduction(+ : sum)
    for (int64_t i = 0; i < zeros; ++i) sum += mixed_word(0, i);
    for (int64_t i = 0; i < words; ++i) sum += mixed_word(static_cast<const uint32_t*>(end.data)[i], zeros + i);
    *digests[side].as<int64_t>() = static_cast<int64_t>(sum);
  });
  c.expect_equal(digests);
}

}  // namespace

ConformanceCases digest_cases() {
  return {
      {"digest", "one",
       [](Conformance& c) {
         digest_case(c, {1}, 0);
       }},
      {"digest", "odd_sizes",
       [](Conformance& c) {
         digest_case(c, {7, 0, 131072, 300001, 2048, 3}, 0);
       }},
      {"digest", "unaligned",
       [](Conformance& c) {
         digest_case(c, {5, 200001}, 2);
       }},
      {"digest", "many_tensors",
       [](Conformance& c) {
         digest_case(c, std::vector<int64_t>(300, 777), 0);
       }},
      {"digest", "real_size",
       [](Conformance& c) {
         digest_case(c, {14336 * 512}, 0);
       }},
      {"digest", "flipped_bit", flipped_bit_case},
      {"digest", "past_2_to_31", digest_long_case},
  };
}

}  // namespace mixtune
