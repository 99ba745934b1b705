#include <algorithm>
#include <array>
#include <cmath>

#include "conformance/cases.h"
#include "conformance/groups.h"
#include "kernels/gemm/gemm.h"
#include "tensor/device.h"

namespace mixtune {

namespace {

// Each side adds K products in fp32 in an order of its own. The partial sums walk at random, so that the rounding
// errors of one side add up to about sqrt(K) / 10 epsilons of the largest result, five deviations to sqrt(K) / 2. The
// result is then rounded to its dtype: to bf16 by an epsilon of bf16 at most, hundreds of times that; and where it is
// added to, twice, since some of cuBLASLt's algorithms round the product before they add (only fp32 is added to in
// training).
enum class Into { kNew, kSum };
double tolerance(DType result, int64_t k, Into into) {
  if (result == DType::kBF16) return into == Into::kSum ? 2.1 : 1.1;
  return std::sqrt(static_cast<double>(k)) + 2;
}

void expect_product(Conformance& c, const Operand& result, int64_t k, Into into = Into::kNew) {
  c.expect_close(result, tolerance(result[Side::kGpu].dtype, k, into));
}

Shape turned(bool trans, int64_t rows, int64_t columns) {
  return trans ? Shape{columns, rows} : Shape{rows, columns};
}

constexpr std::array kBoth = {false, true};

// Multiplies in every transposition, written and added, in the model's dtype and in fp32.
void gemm_case(Conformance& c, int64_t m, int64_t n, int64_t k) {
  std::array<Operand, 2> a, b;
  for (const bool trans : kBoth) {
    a[trans] = c.random(trans ? "a_t" : "a", turned(trans, m, k));
    b[trans] = c.random(trans ? "b_t" : "b", turned(trans, k, n));
  }
  struct Product {
    bool trans_a, trans_b, accumulate;
    Operand result;
  };
  std::vector<Product> products;
  for (const DType dtype : {c.dtype(), DType::kF32})
    for (const bool trans_a : kBoth)
      for (const bool trans_b : kBoth) {
        products.push_back({trans_a, trans_b, false, c.output("c", {m, n}, dtype)});
        products.push_back({trans_a, trans_b, true, c.random("c_sum", {m, n}, dtype)});
      }
  c.run([&](Ctx& ctx, Side side) {
    for (const Product& p : products)
      gemm(ctx, {.a = a[p.trans_a][side],
                 .b = b[p.trans_b][side],
                 .c = p.result[side],
                 .trans_a = p.trans_a,
                 .trans_b = p.trans_b,
                 .accumulate = p.accumulate});
  });
  for (const Product& p : products) expect_product(c, p.result, k, p.accumulate ? Into::kSum : Into::kNew);
}

// A linear layer as training runs it: forward, the input's gradient, and the weight's, written and added in fp32.
void layer_case(Conformance& c, int64_t tokens, int64_t in, int64_t out) {
  const Operand x = c.random("x", {tokens, in}), w = c.random("w", {out, in}, 0.02), dy = c.random("dy", {tokens, out});
  const Operand y = c.output("y", {tokens, out}), dx = c.output("dx", {tokens, in});
  const Operand dw = c.output("dw", {out, in}), dw_sum = c.random("dw_sum", {out, in}, DType::kF32);
  c.run([&](Ctx& ctx, Side side) {
    gemm(ctx, {.a = x[side], .b = w[side], .c = y[side], .trans_b = true});
    gemm(ctx, {.a = dy[side], .b = w[side], .c = dx[side]});
    gemm(ctx, {.a = dy[side], .b = x[side], .c = dw[side], .trans_a = true});
    gemm(ctx, {.a = dy[side], .b = x[side], .c = dw_sum[side], .trans_a = true, .accumulate = true});
  });
  expect_product(c, y, in);
  expect_product(c, dx, out);
  expect_product(c, dw, tokens);
  expect_product(c, dw_sum, tokens, Into::kSum);
}

void no_inner_dimension_case(Conformance& c) {
  const Operand a = c.random("a", {5, 0}), b = c.random("b", {0, 7});
  const Operand zero = c.output("zero", {5, 7}), kept = c.random("kept", {5, 7});
  c.run([&](Ctx& ctx, Side side) {
    gemm(ctx, {.a = a[side], .b = b[side], .c = zero[side]});
    gemm(ctx, {.a = a[side], .b = b[side], .c = kept[side], .accumulate = true});
  });
  c.expect_equal(zero);
  c.expect_equal(kept);
}

void no_rows_case(Conformance& c) {
  const Operand a = c.random("a", {0, 8}), b = c.random("b", {8, 16}), y = c.output("y", {0, 16});
  c.run([&](Ctx& ctx, Side side) { gemm(ctx, {.a = a[side], .b = b[side], .c = y[side]}); });
  c.expect_equal(y);
}

// C has 2^31 + 5e7 elements: 4.4 GB in bf16, and 5.6 GB of scratch where warm-up measures.
void large_result_case(Conformance& c) {
  const int64_t n = 28672, k = 64;
  const Operand w = c.random("w", {n, k});
  c.repeat(600);
  const Operand x = c.random("x", {kRowAlignment, k}), y = c.output("y", {kRowAlignment, n});
  c.run([&](Ctx& ctx, Side side) { gemm(ctx, {.a = x[side], .b = w[side], .c = y[side], .trans_b = true}); });
  expect_product(c, y, k);
}

// Runs the experts' products: forward with either layout of W, and the gradient of W in the model's dtype and in fp32;
// written and added.
void grouped_case(Conformance& c, const Groups& groups, int64_t n, int64_t k) {
  const int64_t e = groups.size(), rows = groups.rows();
  const Operand x = c.random("x", {rows, k}), dy = c.random("dy", {rows, n});
  const Operand w = c.random("w", {e, k, n}), w_t = c.random("w_t", {e, n, k});
  const Operand y = c.output("y", {rows, n}), y_t = c.output("y_t", {rows, n}), y_sum = c.random("y_sum", {rows, n});
  const std::array dw = {c.output("dw", {e, n, k}), c.output("dw_fp32", {e, n, k}, DType::kF32)};
  const std::array dw_sum = {c.random("dw_sum", {e, n, k}), c.random("dw_sum_fp32", {e, n, k}, DType::kF32)};
  c.run([&](Ctx& ctx, Side side) {
    groups.zero_gaps(ctx, x[side]);
    groups.zero_gaps(ctx, dy[side]);
    groups.zero_gaps(ctx, y_sum[side]);
    grouped_gemm(ctx, {.x = x[side], .w = w[side], .y = y[side], .groups = groups});
    grouped_gemm(ctx, {.x = x[side], .w = w_t[side], .y = y_t[side], .groups = groups, .trans_w = true});
    grouped_gemm(ctx, {.x = x[side], .w = w[side], .y = y_sum[side], .groups = groups, .accumulate = true});
    for (const int i : {0, 1}) {
      grouped_wgrad(ctx, {.dy = dy[side], .x = x[side], .dw = dw[i][side], .groups = groups});
      grouped_wgrad(ctx, {.dy = dy[side], .x = x[side], .dw = dw_sum[i][side], .groups = groups, .accumulate = true});
    }
  });
  expect_product(c, y, k);
  expect_product(c, y_t, k);
  expect_product(c, y_sum, k, Into::kSum);
  for (const int i : {0, 1}) {
    expect_product(c, dw[i], groups.largest());
    expect_product(c, dw_sum[i], groups.largest(), Into::kSum);
  }
}

// Y has 2^32 + 1e8 elements, its second group begins past 2^31: 8.8 GB in bf16, and 5.6 GB of scratch. Both have the
// same W, so that the CPU's 128 rows tell of all.
void large_groups_case(Conformance& c) {
  const int64_t n = 28672, k = 64, repetitions = 1200;
  c.repeat(2);
  const Operand w = c.random("w", {1, n, k});
  c.repeat(repetitions);
  const Operand x = c.random("x", {kRowAlignment, k}), y = c.output("y", {kRowAlignment, n});
  const Groups cpu({kRowAlignment});
  const int32_t half = static_cast<int32_t>(repetitions / 2 * kRowAlignment);
  const Groups gpu({half, half});
  c.run([&](Ctx& ctx, Side side) {
    const RowGroups groups = side == Side::kCpu ? cpu : gpu;
    grouped_gemm(ctx, {.x = x[side], .w = w[side], .y = y[side], .groups = groups, .trans_w = true});
  });
  expect_product(c, y, k);
}

ConformanceCase gemm_shape(const char* name, int64_t m, int64_t n, int64_t k) {
  return {"gemm", name, [=](Conformance& c) {
            gemm_case(c, m, n, k);
          }};
}

ConformanceCase layer(const char* name, int64_t tokens, int64_t in, int64_t out) {
  return {"gemm", name, [=](Conformance& c) {
            layer_case(c, tokens, in, out);
          }};
}

ConformanceCase grouped(const char* name, const Groups& groups, int64_t n, int64_t k) {
  return {"grouped_gemm", name, [=](Conformance& c) {
            grouped_case(c, groups, n, k);
          }};
}

}  // namespace

ConformanceCases gemm_cases() {
  return {
      gemm_shape("m1_n1_k1", 1, 1, 1),
      gemm_shape("m1_n37_k24", 1, 37, 24),
      gemm_shape("m128_n40_k20", 128, 40, 20),
      gemm_shape("m3_n5_k7", 3, 5, 7),
      gemm_shape("m257_n513_k71", 257, 513, 71),
      gemm_shape("m384_n256_k1000", 384, 256, 1000),
      gemm_shape("m130_n64_k4099", 130, 64, 4099),
      layer("attention_qkv_few_tokens", 128, 4096, 6144),
      layer("lm_head_odd_tokens", 77, 1024, 32000),
      layer("adapter_of_rank_16", 384, 4096, 16),
      {"gemm", "no_inner_dimension", no_inner_dimension_case},
      {"gemm", "no_rows", no_rows_case},
      large({"gemm", "result_past_2_31", large_result_case, /*fp32=*/false}),
      grouped("tiny_model", Groups({5, 0, 130, 1}), 40, 24),
      grouped("odd_columns", Groups({129, 3, 0, 0, 128}), 21, 13),
      grouped("one_expert_takes_all", Groups({0, 0, 300, 0}), 96, 64),
      grouped("one_group", Groups({256}), 64, 72),
      grouped("no_tokens", Groups({0, 0, 0}, 128), 24, 16),
      grouped("rows_behind_the_last", Groups({1, 127, 200}, 256), 128, 64),
      grouped("more_groups_than_streams", Groups({10, 500, 0, 128, 257, 64, 1, 300}), 192, 256),
      grouped("thin_result", Groups({1, 0, 127, 200, 64}, 128), 32, 4096),
      grouped("thin_result_of_24", Groups({700, 3, 300}), 24, 128),
      grouped("thin_sum", Groups({100, 0, 300, 1}), 1024, 16),
      grouped("thin_sum_of_64", Groups({100, 28, 200}, 256), 448, 64),
      grouped("thin_both", Groups({5, 0, 130, 1}), 8, 64),
      grouped("real_columns", Groups({100, 28, 200}), 2048, 4096),
      large({"grouped_gemm", "rows_past_2_31", large_groups_case, /*fp32=*/false}),
  };
}

}  // namespace mixtune
