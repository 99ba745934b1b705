// The B of adapters, expanded and folded (kernels/adapter.h), and what is dropped out of their input (dropout.h).
#include "conformance/cases.h"
#include "conformance/groups.h"
#include "conformance/tolerances.h"
#include "kernels/adapter.h"
#include "kernels/dropout.h"
#include "kernels/moe/adapted_swiglu.h"
#include "kernels/moe/permute.h"

namespace mixtune {
namespace {

AdaptedModules modules_of(std::initializer_list<AdaptedRows> rows) {
  AdaptedModules modules;
  for (const AdaptedRows& module : rows) modules.add(module);
  return modules;
}

Shape shape_of(int64_t experts, int64_t rows, int64_t columns) {
  return experts > 0 ? Shape{experts, rows, columns} : Shape{rows, columns};
}

// Of a weight of n rows; experts 0: no such dimension. A product, rounded once; with accumulate added to.
void adapter_case(Conformance& c, int64_t experts, int64_t n, int64_t rank, const AdaptedModules& modules) {
  const Shape b_shape = shape_of(experts, modules.row_count(), rank),
              expanded_shape = shape_of(experts, n, modules.size * rank);
  const Operand b = c.random("b", b_shape), expanded = c.output("expanded", expanded_shape);
  const Operand from = c.random("gradient", expanded_shape, DType::kF32);
  const Operand db = c.output("db", b_shape), sum = c.random("db sum", b_shape, DType::kF32);
  c.run([&](Ctx& ctx, Side side) {
    expand_adapter(ctx, {.b = b[side], .modules = modules, .scale = 1.7, .expanded = expanded[side]});
    fold_adapter(ctx, {.dexpanded = from[side], .modules = modules, .scale = 1.7, .db = db[side]});
    fold_adapter(ctx, {.dexpanded = from[side], .modules = modules, .scale = 1.7, .db = sum[side], .accumulate = true});
  });
  c.expect_close(expanded, by_dtype(c, 1, kRounded));
  c.expect_close(db, by_dtype(c, 1, kRounded));
  c.expect_close(sum, 2);
}

// Rows by their places, and by numbers among which are gaps'; in place too.
void dropout_case(Conformance& c, int64_t rows, int64_t columns, double share) {
  const Operand slots = c.integers("slots", {rows}, [](int64_t i) { return i % 5 == 4 ? -1 : 7 * i; });
  const Operand numbers = c.output("numbers", {rows}, DType::kI64);
  const Operand x = c.random("x", {rows, columns}), y = c.output("y", {rows, columns}),
                by_number = c.output("by number", {rows, columns}), same = c.random("in place", {rows, columns});
  c.run([&](Ctx& ctx, Side side) {
    number_rows(ctx, slots[side], int64_t{1} << 33, numbers[side]);
    Dropout dropout = {.share = share, .key = 5, .first = int64_t{1} << 20};
    drop_out(ctx, {.x = x[side], .y = y[side], .dropout = dropout});
    drop_out(ctx, {.x = same[side], .y = same[side], .dropout = dropout});
    dropout.numbers = numbers[side];
    drop_out(ctx, {.x = x[side], .y = by_number[side], .dropout = dropout});
  });
  for (const Operand& operand : {numbers, y, by_number, same}) c.expect_equal(operand);
}

ConformanceCase dropout(const char* name, int64_t rows, int64_t columns, double share) {
  return {"dropout", name, [=](Conformance& c) {
            dropout_case(c, rows, columns, share);
          }};
}

ConformanceCase adapter(const char* name, int64_t experts, int64_t n, int64_t rank, const AdaptedModules& modules) {
  return {"adapter", name, [=](Conformance& c) {
            adapter_case(c, experts, n, rank, modules);
          }};
}

// Which pairs there are: of w1, of w3, of w2.
struct SwigluPairs {
  bool gate, up, down;
  bool in_place = false, accumulate = false;
};

// Sums of products in fp32, of operands in bf16. dgate carries the error of gate with up to |g| < 16
// (elementwise_cases).
void adapted_swiglu_case(Conformance& c, const Groups& groups, int64_t ffn, int64_t rank, const SwigluPairs& which) {
  const int64_t rows = groups.rows(), experts = groups.size();
  AdaptedModules modules;
  if (which.gate) modules.add({0, ffn});
  if (which.up) modules.add({ffn, ffn});
  const bool has_pairs = modules.size > 0;
  const auto rows_of = [&](const char* name, int64_t columns, double deviation, double mean) {
    return c.random(name, {rows, columns}, deviation, mean);
  };
  const Operand gate_up = rows_of("gate_up", 2 * ffn, 1, 0.5), dact = rows_of("dact", ffn, 1, 0.5);
  const Operand weights = c.random("row_weights", {rows}, DType::kF32);
  const Operand u = has_pairs ? rows_of("u", modules.size * rank, 1, 0) : Operand{},
                b = has_pairs ? c.random("b", {experts, modules.row_count(), rank}, 0.2) : Operand{},
                v = which.down ? rows_of("v", rank, 1, 0) : Operand{},
                a = which.down ? c.random("a", {experts, rank, ffn}, 0.2) : Operand{};
  const auto gradient = [&](const char* name, const Shape& shape) {
    return which.accumulate ? c.random(name, shape, DType::kF32) : c.output(name, shape, DType::kF32);
  };
  const Operand db = has_pairs ? gradient("db", {experts, modules.row_count(), rank}) : Operand{},
                da = which.down ? gradient("da", {experts, rank, ffn}) : Operand{};
  const Operand act = c.output("act", {rows, ffn}), dweights = c.output("drow_weights", {rows}, DType::kF32);
  const Operand dgate_up = which.in_place ? gate_up : c.output("dgate_up", {rows, 2 * ffn}),
                again = which.in_place ? dact : c.output("act again", {rows, ffn});
  c.run([&](Ctx& ctx, Side side) {
    for (const Operand& x : {gate_up, dact, weights, u, v})
      if (x[side]) groups.zero_gaps(ctx, x[side]);
    const GateUpPairs pairs = {.u = u[side], .b = b[side], .modules = modules, .scale = 1.7};
    adapted_swiglu_forward(ctx, {gate_up[side], weights[side], groups, pairs, act[side]});
    adapted_swiglu_backward(ctx, {.gate_up = gate_up[side],
                                  .row_weights = weights[side],
                                  .dact = dact[side],
                                  .groups = groups,
                                  .gate_up_pairs = pairs,
                                  .down_pair = {v[side], a[side]},
                                  .dgate_up = dgate_up[side],
                                  .drow_weights = dweights[side],
                                  .act = again[side],
                                  .db = db[side],
                                  .da = da[side],
                                  .accumulate_db = which.accumulate,
                                  .accumulate_da = which.accumulate});
  });
  c.expect_close(act, 2);
  c.expect_close(again, 2);
  c.expect_close(dgate_up, 2);
  c.expect_norm_close(dweights, 1e-4);
  // Of terms rounded to bf16, which the CPU does not round: a walk of them.
  if (has_pairs) c.expect_norm_close(db, 0.004);
  if (which.down) c.expect_norm_close(da, 0.004);
}

ConformanceCase adapted_swiglu(const char* name, const Groups& groups, int64_t ffn, int64_t rank,
                               const SwigluPairs& which) {
  ConformanceCase one = {"adapted_swiglu", name, [=](Conformance& c) {
                           adapted_swiglu_case(c, groups, ffn, rank, which);
                         }};
  one.fp32 = false;
  return one;
}

}  // namespace

ConformanceCases adapter_cases() {
  return {
      adapter("one_module", 0, 40, 8, modules_of({{0, 40}})),
      adapter("q_and_v", 0, 6144, 16, modules_of({{0, 4096}, {5120, 1024}})),
      adapter("q_k_v", 0, 6144, 64, modules_of({{0, 4096}, {4096, 1024}, {5120, 1024}})),
      adapter("a_router", 0, 8, 16, modules_of({{0, 8}})),
      adapter("a_of_the_embedding", 0, 16, 4096, modules_of({{0, 16}})),
      adapter("the_head", 0, 32000, 16, modules_of({{0, 32000}})),
      adapter("gaps_and_odd_rank", 0, 37, 3, modules_of({{2, 5}, {9, 1}, {30, 6}})),
      adapter("experts", 4, 24, 8, modules_of({{0, 12}, {12, 12}})),
      dropout("packs", 300, 4096, 0.1),
      dropout("odd_columns", 77, 37, 0.5),
      dropout("one_element", 1, 1, 0.9),
      dropout("rows_of_experts", 1024, 14336, 0.05),
      adapted_swiglu("two_experts", Groups({100, 300}), 256, 16, {true, true, true}),
      adapted_swiglu("columns_of_no_whole_block", Groups({128, 40}, 128), 160, 16, {true, true, true}),
      adapted_swiglu("in_place_rank_8", Groups({1, 0, 200}), 96, 8, {true, true, true, true, true}),
      adapted_swiglu("rank_32", Groups({0, 260}), 480, 32, {true, true, true, true}),
      adapted_swiglu("rank_24_of_w1", Groups({130, 20}), 64, 24, {true, false, false}),
      adapted_swiglu("rank_64", Groups({130, 20}), 288, 64, {true, true, true, false, true}),
      adapted_swiglu("rank_48_of_w3_and_w2", Groups({70, 20}), 128, 48, {false, true, true}),
      adapted_swiglu("of_w2", Groups({300}), 128, 16, {false, false, true}),
      adapted_swiglu("no_rows", Groups({0, 0, 0}), 64, 16, {true, true, true}),
      adapted_swiglu("many_chunks", Groups({1100, 3000, 64}), 512, 16, {true, true, true, true}),
      adapter("real_experts", 8, 28672, 16, modules_of({{0, 14336}, {14336, 14336}})),
  };
}

}  // namespace mixtune
