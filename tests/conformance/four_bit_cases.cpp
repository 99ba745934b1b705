// NF4 (kernels/four_bit/nf4.h): the same codes, and the same values of them, on both sides.
#include "conformance/cases.h"
#include "kernels/four_bit/nf4.h"

namespace mixtune {
namespace {

// Quantises n values, doubly or not, and dequantises them.
void nf4_case(Conformance& c, int64_t n, bool nested) {
  const Operand x = c.random("x", {n}, 0.02);
  const int64_t blocks = (n + kNf4Block - 1) / kNf4Block, outer = (blocks + kNestedBlock - 1) / kNestedBlock;
  const Operand codes = c.output("codes", {(n + 1) / 2}, DType::kU8);
  const Operand absmax = c.output("absmax", {blocks}, nested ? DType::kU8 : DType::kF32);
  const Operand nested_absmax = nested ? c.output("absmax of absmax", {outer}, DType::kF32) : Operand();
  const Operand offset = nested ? c.output("offset", {1}, DType::kF32) : Operand();
  const Operand bf16 = c.output("through bf16", {n}), fp16 = c.output("through fp16", {n});
  c.run([&](Ctx& ctx, Side side) {
    const Frame frame(ctx);
    Nf4Tensor tensor = {.elements = n, .codes = codes[side], .absmax = absmax[side]};
    if (nested) {
      tensor.nested_absmax = nested_absmax[side];
      tensor.nested_map = ctx.stack.push("map", {std::ssize(dynamic_map())}, DType::kF32);
      tensor.offset = offset[side];
      copy(ctx, host_tensor(dynamic_map().data(), tensor.nested_map.shape), tensor.nested_map);
    }
    nf4_quantise(ctx, {.x = x[side], .to = tensor});
    const Nf4Dequantise both[] = {{.from = tensor, .to = bf16[side], .through = DType::kBF16},
                                  {.from = tensor, .to = fp16[side], .through = DType::kF16}};
    nf4_dequantise(ctx, both);
    wait(ctx);
  });
  c.expect_equal(codes);
  c.expect_equal(absmax);
  if (nested) {
    c.expect_equal(nested_absmax);
    c.expect_equal(offset);
  }
  c.expect_equal(bf16);
  c.expect_close(fp16, 1);  // rounded to bf16 on a GPU alone
}

ConformanceCase nf4(const char* name, int64_t n, bool nested) {
  return {.op = "nf4", .shape = name, .check = [=](Conformance& c) { nf4_case(c, n, nested); }, .fp32 = false};
}

}  // namespace

ConformanceCases four_bit_cases() {
  return {
      nf4("single", 4096, false),
      nf4("nested", 4096, true),
      nf4("ends_within_a_block", 64 * 300 + 17, true),
      nf4("odd_single", 1001, false),
      nf4("real_projection", 4096 * 1024, true),
  };
}

}  // namespace mixtune
