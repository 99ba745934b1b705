// The B of adapters, expanded and folded (kernels/adapter.h), and what is dropped out of their input (dropout.h).
#include "conformance/cases.h"
#include "conformance/tolerances.h"
#include "kernels/adapter.h"
#include "kernels/dropout.h"
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
      adapter("real_experts", 8, 28672, 16, modules_of({{0, 14336}, {14336, 14336}})),
  };
}

}  // namespace mixtune
