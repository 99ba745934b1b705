// The router's logits, and the way of rows to the experts and back.
#include <bit>
#include <cmath>

#include "conformance/cases.h"
#include "conformance/tolerances.h"
#include "kernels/moe/capacity.h"
#include "kernels/moe/permute.h"
#include "kernels/moe/router.h"

namespace mixtune {

namespace {

// The error of sums of n in fp32. In bf16 one rounding, by at most an epsilon, makes their own errors nothing.
double rounded(const Conformance& c, int64_t n) {
  return c.dtype() == DType::kBF16 ? 1.01 : walk(n);
}

void logits_case(Conformance& c, int64_t tokens, int64_t hidden, int64_t experts) {
  const double deviation = 1 / std::sqrt(static_cast<double>(hidden));
  const Operand weight = c.random("weight", {experts, hidden}, deviation);
  const Operand x = c.random("x", {tokens, hidden}), logits = c.output("logits", {tokens, experts}, DType::kF32);
  c.run([&](Ctx& ctx, Side side) { router_logits(ctx, x[side], weight[side], logits[side]); });
  c.expect_close(logits, walk(hidden));
}

struct LogitsBackward {
  int64_t tokens, hidden, experts;
  bool accumulate = false, fp32_gradient = false;
};

void logits_backward_case(Conformance& c, const LogitsBackward& shape) {
  const Operand weight = c.random("weight", {shape.experts, shape.hidden});
  const Operand x = c.random("x", {shape.tokens, shape.hidden}), dx = c.random("dx", {shape.tokens, shape.hidden});
  const Operand dlogits = c.random("dlogits", {shape.tokens, shape.experts}, DType::kF32);
  const DType dtype = shape.fp32_gradient ? DType::kF32 : c.dtype();
  const Operand dweight = shape.accumulate ? c.random("dweight", {shape.experts, shape.hidden}, dtype)
                                           : c.output("dweight", {shape.experts, shape.hidden}, dtype);
  c.run([&](Ctx& ctx, Side side) {
    router_logits_backward(ctx, {.x = x[side],
                                 .weight = weight[side],
                                 .dlogits = dlogits[side],
                                 .dx = dx[side],
                                 .dweight = dweight[side],
                                 .accumulate = shape.accumulate});
  });
  c.expect_close(dx, rounded(c, shape.experts));
  c.expect_close(dweight, shape.fp32_gradient ? walk(shape.tokens) : rounded(c, shape.tokens));
}

// A routing by a rule: the expert of pair t * k + slot, -1 for none.
struct Map {
  int64_t tokens, k, experts;
  std::function<int64_t(int64_t)> expert;
  RowLimit limit = {};

  int64_t pairs() const { return tokens * k; }
  // R, computed from the counts alone.
  int64_t rows() const {
    std::vector<int64_t> count(experts);
    for (int64_t i = 0; i < pairs(); ++i)
      if (expert(i) >= 0) ++count[expert(i)];
    int64_t rows = 0;
    for (const int64_t n : count) rows += align_rows(limit.padded ? limit.most : n);
    return rows;
  }
};

// Expert 1 gets nothing, expert 0 more than its share, every 11th token goes nowhere. Slots of a token differ.
Map uneven(int64_t tokens, int64_t k, int64_t experts) {
  return {tokens, k, experts, [=](int64_t i) {
            const int64_t t = i / k, slot = i % k, e = (slot + (t % 3 == 0 ? 0 : t * 7)) % experts;
            return t % 11 == 10 ? -1 : e == 1 ? (k + 1) % experts : e;
          }};
}

// Every expert with as many rows as there are tokens.
Map padded(Map map) {
  map.limit = {.most = map.tokens, .padded = true};
  return map;
}

Map all_to_one(int64_t tokens, int64_t experts) {
  return {tokens, 1, experts, [=](int64_t) {
            return experts - 1;
          }};
}

Map nowhere(int64_t tokens) {
  return {tokens, 2, 8, [](int64_t) {
            return int64_t{-1};
          }};
}

struct MapOperands {
  Operand experts, begin, count, row_of_slot, slot_of_row;
  RowLimit limit;

  MapOperands(Conformance& c, const Map& map)
      : experts(c.integers("experts", {map.tokens, map.k}, map.expert)),
        begin(c.host_output("begin", {map.experts}, DType::kI32)),
        count(c.host_output("count", {map.experts}, DType::kI32)),
        row_of_slot(c.output("row of slot", {map.tokens, map.k}, DType::kI32)),
        slot_of_row(c.output("slot of row", {map.rows()}, DType::kI32)),
        limit(map.limit) {}

  // Makes the map. Returns R.
  int64_t make(Ctx& ctx, Side side) const {
    const int64_t rows = permute_map(ctx, {.experts = experts[side],
                                           .begin = begin[side],
                                           .count = count[side],
                                           .row_of_slot = row_of_slot[side],
                                           .limit = limit});
    permute_invert(ctx, row_of_slot[side], slot_of_row[side]);
    return rows;
  }
};

void map_case(Conformance& c, const Map& map) {
  const MapOperands operands(c, map);
  const Operand returned = c.host_output("returned rows", {1}, DType::kI32);
  c.run([&](Ctx& ctx, Side side) { *returned[side].as<int32_t>() = static_cast<int32_t>(operands.make(ctx, side)); });
  for (const Operand& operand : {operands.begin, operands.count, operands.row_of_slot, operands.slot_of_row, returned})
    c.expect_equal(operand);
}

struct Drops {
  Map map;
  int64_t most;
  TokenDropPolicy policy = TokenDropPolicy::kProbs;
  bool ties = false;  // weights of few values
};

// The same fp32 weights on both sides, so the same choice. Of `uneven`, two slots of a token may have one expert: their
// order is that of slots on both sides.
void drop_case(Conformance& c, const Drops& drops) {
  const Map& map = drops.map;
  const Shape shape = {map.tokens, map.k};
  const Operand experts = c.integers("experts", shape, map.expert);
  const Operand weights =
      drops.ties ? c.integers("bits of weights", shape,
                              [](int64_t i) { return std::bit_cast<int32_t>(static_cast<float>(i * i % 7) / 8); })
                 : c.random("weights", shape, DType::kF32, 0.1, 0.5);
  const Operand sent = c.output("sent", shape, DType::kI32);
  const Operand dropped = c.doubles("dropped", {2}, [](int64_t i) { return 5.0 + static_cast<double>(i); });
  c.run([&](Ctx& ctx, Side side) {
    Tensor of_side = weights[side];
    of_side.dtype = DType::kF32;
    drop_pairs(ctx, {.experts = experts[side],
                     .weights = of_side,
                     .all_experts = map.experts,
                     .most = drops.most,
                     .policy = drops.policy,
                     .sent = sent[side],
                     .dropped = dropped[side]});
  });
  c.expect_equal(sent);
  c.expect_equal(dropped);
}

// Copies are bitwise. Sums of k rows and the residual are made in fp32 in the same order on both sides.
void rows_case(Conformance& c, const Map& map, int64_t hidden) {
  const MapOperands operands(c, map);
  const Operand x = c.random("x", {map.tokens, hidden}), rows = c.output("rows", {map.rows(), hidden});
  const Operand residual = c.random("residual", {map.tokens, hidden}), sum = c.output("sum", {map.tokens, hidden});
  const Operand in_place = c.random("in place", {map.tokens, hidden}), y = c.output("y", {map.tokens, hidden});
  const Operand weights = c.random("weights", {map.tokens, map.k}, DType::kF32);
  const Operand row_weights = c.output("row weights", {map.rows()}, DType::kF32);
  const Operand weights_back = c.output("weights back", {map.tokens, map.k}, DType::kF32);
  c.run([&](Ctx& ctx, Side side) {
    operands.make(ctx, side);
    permute_rows(ctx, x[side], operands.slot_of_row[side], map.k, rows[side]);
    unpermute_rows(ctx, rows[side], operands.row_of_slot[side], residual[side], y[side]);
    unpermute_rows(ctx, rows[side], operands.row_of_slot[side], in_place[side], in_place[side]);
    unpermute_rows(ctx, rows[side], operands.row_of_slot[side], {}, sum[side]);
    permute_weights(ctx, weights[side], operands.slot_of_row[side], row_weights[side]);
    unpermute_weights(ctx, row_weights[side], operands.row_of_slot[side], weights_back[side]);
  });
  for (const Operand& operand : {rows, row_weights, weights_back, y, in_place, sum}) c.expect_equal(operand);
}

// A few rows of 4096 columns among so many that the last ones begin past 2^31 elements. The many exist on the GPU
// alone: scattered from the few, gathered again, by ops that cases with less memory check too.
struct ManyRows {
  static constexpr int64_t kFew = 32, kEvery = 16500, kAll = kFew * kEvery, kHidden = 4096;
  static_assert(kAll * kHidden > int64_t{1} << 31);

  Operand few_of_all, all_of_few;

  explicit ManyRows(Conformance& c)
      : few_of_all(c.integers("few of all", {kFew, 1}, [](int64_t i) { return (i + 1) * kEvery - 1; })),
        all_of_few(c.integers("all of few", {kAll, 1},
                              [](int64_t i) { return (i + 1) % kEvery == 0 ? (i + 1) / kEvery - 1 : -1; })) {}

  // Scatters the rows `few` among rows of 0; on the CPU copies them.
  Tensor scatter(Ctx& ctx, const Tensor& few) const {
    const Tensor all = ctx.stack.push("all rows", {ctx.like_gpu() ? kAll : kFew, few.shape[1]}, few.dtype);
    if (ctx.like_gpu())
      permute_rows(ctx, few, all_of_few[Side::kGpu].view({kAll}), 1, all);
    else
      copy(ctx, few, all);
    return all;
  }

  void gather(Ctx& ctx, const Tensor& all, const Tensor& few) const {
    if (ctx.like_gpu())
      permute_rows(ctx, all, few_of_all[Side::kGpu].view({kFew}), 1, few);
    else
      copy(ctx, all, few);
  }
};

// Takes 4.3 GB in bf16.
void many_rows_case(Conformance& c) {
  const ManyRows many(c);
  const Shape shape = {ManyRows::kFew, ManyRows::kHidden};
  const Operand x = c.random("x", shape), gathered = c.output("gathered", shape);
  const Operand summed = c.output("summed", shape), written = c.output("written", shape);
  c.run([&](Ctx& ctx, Side side) {
    const Frame frame(ctx);
    const Tensor all = many.scatter(ctx, x[side]);
    many.gather(ctx, all, gathered[side]);
    if (side == Side::kGpu) {
      unpermute_rows(ctx, all, many.few_of_all[side], {}, summed[side]);
      unpermute_rows(ctx, x[side], many.all_of_few[side], {}, all);
    } else {
      copy(ctx, all, summed[side]);
    }
    many.gather(ctx, all, written[side]);
  });
  for (const Operand& operand : {gathered, summed, written}) c.expect_equal(operand);
}

// Takes twice 4.3 GB in bf16.
void many_tokens_case(Conformance& c) {
  constexpr int64_t kFew = ManyRows::kFew, kHidden = ManyRows::kHidden, kExperts = 8;
  const ManyRows many(c);
  const Operand x = c.random("x", {kFew, kHidden}), weight = c.random("weight", {kExperts, kHidden});
  const Operand dlogits = c.random("dlogits", {kFew, kExperts}, DType::kF32);
  const Operand logits = c.output("logits", {kFew, kExperts}, DType::kF32);
  const Operand dx = c.output("dx", {kFew, kHidden}), dweight = c.output("dweight", {kExperts, kHidden});
  c.run([&](Ctx& ctx, Side side) {
    const Frame frame(ctx);
    const Tensor all_x = many.scatter(ctx, x[side]), all_dx = many.scatter(ctx, x[side]);
    const Tensor all_logits = many.scatter(ctx, dlogits[side]), all_dlogits = many.scatter(ctx, dlogits[side]);
    router_logits(ctx, all_x, weight[side], all_logits);
    router_logits_backward(
        ctx, {.x = all_x, .weight = weight[side], .dlogits = all_dlogits, .dx = all_dx, .dweight = dweight[side]});
    many.gather(ctx, all_logits, logits[side]);
    many.gather(ctx, all_dx, dx[side]);
  });
  c.expect_close(logits, walk(kHidden));
  c.expect_close(dx, rounded(c, kExperts));
  c.expect_close(dweight, rounded(c, kFew));
}

void add_logits_cases(ConformanceCases& cases) {
  const auto logits = [&](const char* shape, int64_t tokens, int64_t hidden, int64_t experts) {
    cases.push_back({"router_logits", shape, [=](Conformance& c) {
                       logits_case(c, tokens, hidden, experts);
                     }});
  };
  logits("T257_H4096_E8", 257, 4096, 8);
  logits("T1_H4096_E8", 1, 4096, 8);
  logits("T133_H24_E4", 133, 24, 4);
  logits("T70_H37_E5_odd", 70, 37, 5);
  logits("T50_H512_E67", 50, 512, 67);
  logits("T9_H64_E1", 9, 64, 1);
  logits("T257_H4096_R64_of_an_adapter", 257, 4096, 64);

  const auto logits_backward = [&](const char* shape, const LogitsBackward& args) {
    cases.push_back({"router_logits_backward", shape, [=](Conformance& c) {
                       logits_backward_case(c, args);
                     }});
  };
  logits_backward("T1500_H4096_E8", {1500, 4096, 8});
  logits_backward("T300_H4096_E8_accumulate", {300, 4096, 8, true});
  logits_backward("T300_H2048_E8_accumulate_fp32", {300, 2048, 8, true, true});
  logits_backward("T1_H4096_E8_fp32", {1, 4096, 8, false, true});
  logits_backward("T130_H24_E4", {130, 24, 4});
  logits_backward("T131_H37_E5_odd", {131, 37, 5, true});
  logits_backward("T200_H512_E67", {200, 512, 67});
  logits_backward("T300_H4096_R64_of_an_adapter", {300, 4096, 64, true});
}

void add_permute_cases(ConformanceCases& cases) {
  const auto map = [&](const char* shape, const Map& args) {
    cases.push_back({"permute_map", shape, [=](Conformance& c) { map_case(c, args); }, true, false});
  };
  map("T1_k2_E8", uneven(1, 2, 8));
  map("T16384_k2_E8", uneven(16384, 2, 8));
  map("T70001_k2_E8", uneven(70001, 2, 8));
  map("T3001_k8_E256", uneven(3001, 8, 256));
  map("T5000_k3_E5", uneven(5000, 3, 5));
  map("T2000_E1", all_to_one(2000, 1));
  map("T5000_E8_all_to_one", all_to_one(5000, 8));
  map("T300_nowhere", nowhere(300));
  map("T700_k2_E8_padded", padded(uneven(700, 2, 8)));
  map("T3001_k8_E256_padded", padded(uneven(3001, 8, 256)));

  const auto rows = [&](const char* shape, const Map& args, int64_t hidden) {
    cases.push_back({"permute_rows", shape, [=](Conformance& c) {
                       rows_case(c, args, hidden);
                     }});
  };
  rows("T700_k2_E8_H4096", uneven(700, 2, 8), 4096);
  rows("T1_k2_E8_H4096", uneven(1, 2, 8), 4096);
  rows("T333_k2_E4_H24", uneven(333, 2, 4), 24);
  rows("T333_k3_E5_H37_odd", uneven(333, 3, 5), 37);
  rows("T333_k8_E64_H66", uneven(333, 8, 64), 66);
  rows("T500_E8_all_to_one_H512", all_to_one(500, 8), 512);
  rows("T50_nowhere_H64", nowhere(50), 64);
  rows("T333_k2_E4_H24_padded", padded(uneven(333, 2, 4)), 24);
}

void add_drop_cases(ConformanceCases& cases) {
  const auto drop = [&](const char* shape, const Drops& args) {
    cases.push_back({"drop_pairs", shape, [=](Conformance& c) { drop_case(c, args); }, true, false});
  };
  constexpr auto kPosition = TokenDropPolicy::kPosition;
  drop("T16384_k2_E8", {uneven(16384, 2, 8), 4096});
  drop("T16384_k2_E8_ties", {uneven(16384, 2, 8), 4096, TokenDropPolicy::kProbs, true});
  drop("T16384_k2_E8_position", {uneven(16384, 2, 8), 4096, kPosition});
  drop("T70001_k2_E8", {uneven(70001, 2, 8), 9000});
  drop("T1_k2_E8", {uneven(1, 2, 8), 1});
  drop("T1025_k1_all_to_one", {all_to_one(1025, 8), 1024});
  drop("T5000_E1_position", {all_to_one(5000, 1), 1, kPosition});
  drop("T3001_k8_E256", {uneven(3001, 8, 256), 60});
  drop("T900_k32_E700", {uneven(900, 32, 700), 11});
  drop("T5000_k3_E5_nothing", {uneven(5000, 3, 5), 15000});
  drop("T300_nowhere", {nowhere(300), 1});
}

}  // namespace

ConformanceCases routing_cases() {
  ConformanceCases cases;
  add_logits_cases(cases);
  add_permute_cases(cases);
  add_drop_cases(cases);
  cases.push_back(large({"permute_rows", "past_2_31_elements", many_rows_case, false}));
  cases.push_back(large({"router_logits", "past_2_31_elements", many_tokens_case, false}));
  return cases;
}

}  // namespace mixtune
