// Operands in 8 bits, and products of them. What GPUs write here has the CPU's bits.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "conformance/cases.h"
#include "conformance/groups.h"
#include "conformance/tolerances.h"
#include "kernels/eight_bit/coded_gemm.h"
#include "kernels/eight_bit/coded_swiglu.h"
#include "kernels/eight_bit/fp8_weight.h"
#include "kernels/eight_bit/operand_health.h"
#include "kernels/swiglu.h"

namespace mixtune {

namespace {

void round_case(Conformance& c, const Shape& shape, const EightBits& bits, int64_t live) {
  const Operand x = c.random("x", shape, 3), y = c.output("y", shape);
  c.run([&](Ctx& ctx, Side side) { round_operand(ctx, {.x = x[side], .y = y[side], .bits = bits, .live = live}); });
  if (bits.scale == ScaleRule::kFp32)
    c.expect_close(y, 1);  // the scale's product is rounded to the dtype
  else
    c.expect_equal(y);
}

// Counts, and bits of the largest: the same on both, whatever the order.
void health_case(Conformance& c, const Operand& x, const EightBits& bits, int64_t live) {
  const Operand tally = c.output("tally", {kHealthNumbers}, DType::kI64);
  c.run([&](Ctx& ctx, Side side) {
    zero(ctx, tally[side]);
    for (int twice = 0; twice < 2; ++twice)
      operand_health(ctx, {.x = x[side], .bits = bits, .live = live, .tally = tally[side]});
  });
  c.expect_equal(tally);
}

// Every bf16 there is, each in a block with the same large one: so many are lost, and NaNs and infinities are there.
void all_health_case(Conformance& c, const EightBits& bits) {
  constexpr int64_t kWide = 512, kTall = 2 * 0x10000 / kWide;
  health_case(c, c.bits("x", {kTall, kWide}, [](int64_t i) { return static_cast<uint16_t>(i % 2 ? 0x4780 : i / 2); }),
              bits, kTall);
}

// Every bf16 there is, in blocks of neighbours: so each block holds one exponent, and every mantissa of it.
void all_values_case(Conformance& c, const EightBits& bits) {
  constexpr int64_t kWide = 128, kTall = 0x10000 / kWide;
  const Operand x = c.bits("x", {kTall, kWide}, [](int64_t i) { return static_cast<uint16_t>(i); });
  const Operand y = c.output("y", {kTall, kWide});
  c.run([&](Ctx& ctx, Side side) { round_operand(ctx, {.x = x[side], .y = y[side], .bits = bits, .live = kTall}); });
  c.expect_equal(y);
}

// The four kinds of codes at once, and each alone.
void quantise_case(Conformance& c, std::vector<int32_t> counts, int64_t tail, int64_t columns, ScaleRule rule,
                   const std::function<uint16_t(int64_t)>& value = {}) {
  const Groups groups(std::move(counts), tail);
  const Shape shape = {groups.rows(), columns};
  const Operand x = value ? c.bits("x", shape, value) : c.random("x", shape);
  struct Kind {
    Codes Quantise::*out;
    Operand codes, scales, alone, scales_alone;
  };
  std::vector<Kind> kinds;
  const auto add = [&](Codes Quantise::*out, CodesForm form) {
    const CodesShape of = codes_shape(form, {.matrix = shape, .groups = groups.size(), .scale = rule});
    kinds.push_back({out, c.output("codes", of.codes, DType::kF8E4M3), c.output("scales", {of.scales}, of.scale),
                     c.output("codes_alone", of.codes, DType::kF8E4M3),
                     c.output("scales_alone", {of.scales}, of.scale)});
  };
  add(&Quantise::rows, CodesForm::kRows);
  add(&Quantise::columns, CodesForm::kColumns);
  add(&Quantise::squares, CodesForm::kSquares);
  add(&Quantise::turned, CodesForm::kTurned);
  c.run([&](Ctx& ctx, Side side) {
    Quantise all = {.x = x[side], .groups = groups, .scale = rule};
    for (const Kind& kind : kinds) {
      Quantise one = {.x = x[side], .groups = groups, .scale = rule};
      all.*kind.out = {kind.codes[side], kind.scales[side]};
      one.*kind.out = {kind.alone[side], kind.scales_alone[side]};
      quantise(ctx, one);
    }
    quantise(ctx, all);
  });
  for (const Kind& kind : kinds)
    for (const Operand& operand : {kind.codes, kind.scales, kind.alone, kind.scales_alone}) c.expect_equal(operand);
}

// A weight's codes, and what they stand for, alone and as each of two whose values lie one behind the other.
void held_weight_case(Conformance& c, const Shape& matrix, const std::function<uint16_t(int64_t)>& value = {}) {
  const Operand x = value ? c.bits("x", matrix, value) : c.random("x", matrix, 0.02);
  const Operand codes = c.output("codes", matrix, DType::kF8E4M3),
                scales = c.output("scales", fp8_weight_scales(matrix), DType::kF32);
  const Operand alone = c.output("alone", matrix), two = c.output("two", {2, matrix[0], matrix[1]});
  c.run([&](Ctx& ctx, Side side) {
    const Fp8Weight weight = {codes[side], scales[side]};
    fp8_quantise(ctx, {.x = x[side], .to = weight});
    const Fp8Dequantise all[] = {{.from = weight, .to = alone[side]},
                                 {.from = weight, .to = two[side].slice(0, 1)},
                                 {.from = weight, .to = two[side].slice(1, 1)}};
    fp8_dequantise(ctx, all);
  });
  for (const Operand& operand : {codes, scales, alone, two}) c.expect_equal(operand);
}

// Hopper's tensor cores add 128 products of codes with about 13 bits behind the largest one's leading bit: 2^-11 of the
// sum of 128 magnitudes, which is 1.6 of the largest of many sums of 128 normal products. Parts of 128 are added in
// fp32, so that longer sums are no worse. bf16 results are rounded once more, by far more than that.
void expect_coded_product(Conformance& c, const Operand& result) {
  constexpr double kPartialSums = 1.6 * 0x1p-11 / 0x1p-23;
  const bool bf16 = result[Side::kGpu].dtype == DType::kBF16;
  c.expect_close(result, bf16 ? 1.3 : kPartialSums);
  c.expect_norm_close(result, bf16 ? 0x1p-8 : 5e-4);
}

// An expert layer's three products of quantised operands, written and, of the weight, added.
struct Products {
  std::vector<int32_t> counts;
  int64_t tail, in, out;
  ScaleRule scale = ScaleRule::kPowerOfTwo;
};

void products_case(Conformance& c, const Products& of) {
  if (!has_coded_products(gpu_info(0).compute_capability, of.scale))
    GTEST_SKIP() << "skipped: not a GPU with products of such codes";
  const Groups groups(of.counts, of.tail);
  const int64_t experts = groups.size(), in = of.in, out = of.out;
  const Operand x = c.random("x", {groups.rows(), in}), dy = c.random("dy", {groups.rows(), out}),
                w = c.random("w", {experts, out, in}, 0.02);
  const Operand y = c.output("y", {groups.rows(), out}), dx = c.output("dx", {groups.rows(), in}),
                dx_sum = c.random("dx_sum", {groups.rows(), in}, DType::kF32), dw = c.output("dw", {experts, out, in}),
                dw_sum = c.random("dw_sum", {experts, out, in}, DType::kF32);
  c.run([&](Ctx& ctx, Side side) {
    const Frame frame(ctx);
    const WeightRows weight(w[side]);
    const auto push = [&](CodesForm form, const Shape& matrix) {
      return push_codes(ctx, form, {.matrix = matrix, .groups = experts, .scale = of.scale});
    };
    const Codes forward = push(CodesForm::kSquares, weight.matrix().shape),
                backward = push(CodesForm::kTurned, weight.matrix().shape),
                x_rows = push(CodesForm::kRows, x[side].shape), x_turned = push(CodesForm::kTurned, x[side].shape),
                dy_rows = push(CodesForm::kRows, dy[side].shape),
                dy_columns = push(CodesForm::kColumns, dy[side].shape);
    quantise(
        ctx,
        {.x = weight.matrix(), .groups = weight.groups(), .scale = of.scale, .squares = forward, .turned = backward});
    quantise(ctx, {.x = x[side], .groups = groups, .scale = of.scale, .rows = x_rows, .turned = x_turned});
    quantise(ctx, {.x = dy[side], .groups = groups, .scale = of.scale, .rows = dy_rows, .columns = dy_columns});
    coded_gemm(ctx, {.x = x_rows, .weight = forward, .y = y[side], .groups = groups});
    const CodedGemm data = {
        .x = dy_rows, .weight = backward, .side = WeightSide::kDataGradient, .y = dx[side], .groups = groups};
    CodedGemm added = data;
    added.y = dx_sum[side];
    added.accumulate = true;
    coded_gemm(ctx, data);
    coded_gemm(ctx, added);
    CodedWgrad gradient = {.dy = dy_columns, .x = x_turned, .dw = dw[side], .groups = groups};
    coded_wgrad(ctx, gradient);
    gradient.dw = dw_sum[side];
    gradient.accumulate = true;
    coded_wgrad(ctx, gradient);
  });
  for (const Operand& result : {y, dx, dx_sum, dw, dw_sum}) expect_coded_product(c, result);
}

struct CodesPair {
  Operand codes, scales;
  Codes operator[](Side side) const { return {codes[side], scales[side]}; }
};

// SwiGLU into codes has the bits of SwiGLU and quantise in turn, on the same device.
void coded_swiglu_case(Conformance& c, std::vector<int32_t> counts, int64_t tail, int64_t ffn, ScaleRule rule) {
  const Groups groups(std::move(counts), tail);
  const Operand gate_up = c.random("gate_up", {groups.rows(), 2 * ffn}, 3, 0.5),
                dact = c.random("dact", {groups.rows(), ffn}, 1, 0.5);
  const Operand weights = c.random("row_weights", {groups.rows()}, DType::kF32, 0.1, 0.5);
  const auto codes = [&](const char* name, CodesForm form, int64_t columns) {
    const CodesShape of =
        codes_shape(form, {.matrix = {groups.rows(), columns}, .groups = groups.size(), .scale = rule});
    return CodesPair{c.output(name, of.codes, DType::kF8E4M3), c.output(name, {of.scales}, of.scale)};
  };
  struct Results {
    CodesPair act_rows, rows, columns, act_turned;
    Operand drow_weights;
  };
  const auto results = [&] {
    return Results{codes("act_rows", CodesForm::kRows, ffn), codes("rows", CodesForm::kRows, 2 * ffn),
                   codes("columns", CodesForm::kColumns, 2 * ffn), codes("act_turned", CodesForm::kTurned, ffn),
                   c.output("drow_weights", {groups.rows()}, DType::kF32)};
  };
  const Results at_once = results(), in_turn = results();
  c.run([&](Ctx& ctx, Side side) {
    const Frame frame(ctx);
    const RowGroups view = groups;
    for (const Operand& operand : {gate_up, dact, weights}) groups.zero_gaps(ctx, operand[side]);
    coded_swiglu_forward(ctx, {.gate_up = gate_up[side],
                               .row_weights = weights[side],
                               .groups = view,
                               .scale = rule,
                               .act_rows = at_once.act_rows[side]});
    coded_swiglu_backward(ctx, {.gate_up = gate_up[side],
                                .row_weights = weights[side],
                                .dact = dact[side],
                                .groups = view,
                                .scale = rule,
                                .dgate_up_rows = at_once.rows[side],
                                .dgate_up_columns = at_once.columns[side],
                                .act_turned = at_once.act_turned[side],
                                .drow_weights = at_once.drow_weights[side]});
    const DType dtype = dact[side].dtype;
    const Tensor act = ctx.stack.push("act", {groups.rows(), ffn}, dtype),
                 dgate_up = ctx.stack.push("dgate_up", {groups.rows(), 2 * ffn}, dtype);
    swiglu_forward(ctx, gate_up[side], weights[side], act);
    quantise(ctx, {.x = act, .groups = view, .scale = rule, .rows = in_turn.act_rows[side]});
    swiglu_backward(ctx, {.gate_up = gate_up[side],
                          .row_weights = weights[side],
                          .dact = dact[side],
                          .dgate_up = dgate_up,
                          .drow_weights = in_turn.drow_weights[side],
                          .act = act});
    quantise(
        ctx,
        {.x = dgate_up, .groups = view, .scale = rule, .rows = in_turn.rows[side], .columns = in_turn.columns[side]});
    quantise(ctx, {.x = act, .groups = view, .scale = rule, .turned = in_turn.act_turned[side]});
  });
  for (const auto of : {&Results::act_rows, &Results::rows, &Results::columns, &Results::act_turned}) {
    c.expect_same((at_once.*of).codes, (in_turn.*of).codes);
    c.expect_same((at_once.*of).scales, (in_turn.*of).scales);
  }
  c.expect_close(at_once.drow_weights, 32 + sum_epsilons(ffn));
}

ConformanceCase bf16_only(std::string op, std::string shape, std::function<void(Conformance&)> check) {
  return {.op = std::move(op), .shape = std::move(shape), .check = std::move(check), .fp32 = false};
}

}  // namespace

ConformanceCases eight_bit_cases() {
  constexpr auto kTwo = ScaleRule::kPowerOfTwo;
  constexpr auto kFp32 = ScaleRule::kFp32;
  constexpr auto kMx = ScaleRule::kMx;
  struct Kind {
    const char* name;
    EightBits bits;
  };
  const std::vector<Kind> kinds = {{"mx_columns", {kE4M3, {1, 32}, ScaleRule::kMx}},
                                   {"mx_rows", {kE4M3, {32, 1}, ScaleRule::kMx}},
                                   {"row", {kE4M3, {1, 128}, kTwo}},
                                   {"column", {kE4M3, {128, 1}, kTwo}},
                                   {"square", {kE4M3, {128, 128}, kTwo}},
                                   {"square_fp32", {kE4M3, {128, 128}, kFp32}},
                                   {"tensor", {kE4M3, {0, 0}, kTwo}},
                                   {"tensor_e5m2", {kE5M2, {0, 0}, kTwo}}};
  ConformanceCases cases;
  for (const auto& [name, bits] : kinds) {
    for (const auto& [rows, columns, live] :
         {std::array<int64_t, 3>{256, 384, 256}, {300, 200, 131}, {1, 1, 1}, {128, 33, 0}})
      cases.push_back({std::string("round_") + name, fmt::format("{}x{}_{}", rows, columns, live), [=](Conformance& c) {
                         round_case(c, {rows, columns}, bits, live);
                       }});
    cases.push_back({std::string("round_") + name, "3x150x260", [=](Conformance& c) {
                       round_case(c, {3, 150, 260}, bits, 150);
                     }});
    const std::string health = std::string("health_") + name;
    for (const auto& [rows, columns, live] :
         {std::array<int64_t, 3>{2048, 4096, 2048}, {300, 200, 131}, {300, 201, 300}, {1, 1, 1}, {128, 33, 0}})
      cases.push_back({health, fmt::format("{}x{}_{}", rows, columns, live), [=](Conformance& c) {
                         health_case(c, c.random("x", {rows, columns}, 3), bits, live);
                       }});
    cases.push_back({health, "3x150x260", [=](Conformance& c) {
                       health_case(c, c.random("x", {3, 150, 260}, 3), bits, 150);
                     }});
    cases.push_back(bf16_only(health, "all_values", [=](Conformance& c) { all_health_case(c, bits); }));
    if (bits.scale != kFp32)
      cases.push_back(
          bf16_only(std::string("round_") + name, "all_values", [=](Conformance& c) { all_values_case(c, bits); }));
  }
  for (const auto& [name, rule] : {std::pair("", kTwo), {"_fp32", kFp32}, {"_mx", kMx}}) {
    const std::string op = std::string("quantise") + name;
    cases.push_back(bf16_only(op, "128x128", [=](Conformance& c) { quantise_case(c, {128}, 0, 128, rule); }));
    cases.push_back(bf16_only(op, "1_of_128x256", [=](Conformance& c) { quantise_case(c, {1}, 0, 256, rule); }));
    cases.push_back(bf16_only(op, "groups", [=](Conformance& c) {
      quantise_case(c, {200, 0, 1, 640, 129}, 256, 640, rule);
    }));
    cases.push_back(bf16_only(op, "64_groups", [=](Conformance& c) {
      std::vector<int32_t> counts;
      for (int32_t e = 0; e < 64; ++e) counts.push_back(e % 5 * 60);
      quantise_case(c, counts, 0, 384, rule);
    }));
    cases.push_back(bf16_only(op, "all_values", [=](Conformance& c) {
      quantise_case(c, {512}, 0, 128, rule, [](int64_t i) { return static_cast<uint16_t>(i); });
    }));
    cases.push_back(bf16_only(op, "all_values_down", [=](Conformance& c) {
      quantise_case(c, {512}, 0, 128, rule, [](int64_t i) { return static_cast<uint16_t>(i % 128 * 512 + i / 128); });
    }));
  }
  for (const Shape& matrix : {Shape{128, 128}, {1024, 4096}, {300, 200}, {1, 1}, {257, 131}, {16, 8}})
    cases.push_back(bf16_only("held_weight", fmt::format("{}x{}", matrix[0], matrix[1]),
                              [=](Conformance& c) { held_weight_case(c, matrix); }));
  for (const int64_t apart : {1, 512})
    cases.push_back(bf16_only("held_weight", fmt::format("all_values_{}_apart", apart), [=](Conformance& c) {
      held_weight_case(c, {512, 128},
                       [=](int64_t i) { return static_cast<uint16_t>(i * apart % 0x10000 + i * apart / 0x10000); });
    }));
  for (const auto& [name, rule] : {std::pair("", kTwo), {"_fp32", kFp32}, {"_mx", kMx}})
    for (const int64_t ffn : {128, 384, 1792})
      cases.push_back(bf16_only(std::string("coded_swiglu") + name, fmt::format("groups_{}", ffn), [=](Conformance& c) {
        coded_swiglu_case(c, {200, 0, 1, 640, 129}, 256, ffn, rule);
      }));
  for (const auto& [name, rule] : {std::pair("codes", kTwo), {"codes_mx", kMx}})
    for (const auto& [shape, products] : {std::pair("128x128x128", Products{{128}, 0, 128, 128}),
                                          {"groups", Products{{200, 0, 1, 640, 129}, 256, 384, 640}},
                                          {"dense", Products{{300}, 128, 1024, 1536}},
                                          {"no_rows", Products{{0, 5}, 128, 256, 128}},
                                          {"long_sums", Products{{256, 1300}, 0, 2048, 3584}}})
      cases.push_back(bf16_only(name, shape, [=](Conformance& c) {
        products_case(c, {products.counts, products.tail, products.in, products.out, rule});
      }));
  return cases;
}

}  // namespace mixtune
