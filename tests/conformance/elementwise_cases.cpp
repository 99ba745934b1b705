// RMSNorm, RoPE, SwiGLU, embedding.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>

#include "base/random.h"
#include "conformance/cases.h"
#include "conformance/tolerances.h"
#include "kernels/embedding.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"

namespace mixtune {
namespace {

// y is a product of rstd, half as exact as the sum of squares; in bf16 also of r, which the CPU does not round.
void rms_norm_forward_case(Conformance& c, int64_t tokens, int64_t hidden, bool residual) {
  const Operand x = c.random("x", {tokens, hidden});
  const Operand delta = residual ? c.random("delta", {tokens, hidden}) : Operand{};
  const Operand weight = c.random("weight", {hidden}, 0.3, 1);
  const Operand r = residual ? c.output("r", {tokens, hidden}) : Operand{};
  const Operand y = c.output("y", {tokens, hidden}), again = c.output("y again", {tokens, hidden});
  const Operand rstd = c.output("rstd", {tokens}, DType::kF32);
  c.run([&](Ctx& ctx, Side side) {
    rms_norm_forward(ctx, {.x = x[side],
                           .delta = delta[side],
                           .weight = weight[side],
                           .eps = 1e-5,
                           .r = r[side],
                           .y = y[side],
                           .rstd = rstd[side]});
    rms_norm_recompute(ctx, residual ? r[side] : x[side], weight[side], rstd[side], again[side]);
  });
  if (residual) c.expect_equal(r);
  const bool r_is_rounded = residual && c.dtype() == DType::kBF16;
  c.expect_close(rstd, r_is_rounded ? 0x1p15 : sum_epsilons(hidden));
  c.expect_close(y, by_dtype(c, 2 + sum_epsilons(hidden), r_is_rounded ? 2 * kRounded : kRounded));
  c.expect_same(y, again);
}

// r stands over x or delta; past 2^31 elements it takes 13 GiB of the GPU's memory.
void rms_norm_in_place_case(Conformance& c, int64_t tokens, int64_t hidden, bool over_x, int64_t times) {
  const Operand weight = c.random("weight", {hidden}, 0.3, 1);
  c.repeat(times);
  const Operand x = c.random("x", {tokens, hidden}), delta = c.random("delta", {tokens, hidden});
  const Operand y = c.output("y", {tokens, hidden}), rstd = c.output("rstd", {tokens}, DType::kF32);
  const Operand& r = over_x ? x : delta;
  c.run([&](Ctx& ctx, Side side) {
    rms_norm_forward(ctx, {.x = x[side],
                           .delta = delta[side],
                           .weight = weight[side],
                           .eps = 1e-5,
                           .r = r[side],
                           .y = y[side],
                           .rstd = rstd[side]});
  });
  c.expect_equal(r);
  c.expect_close(y, by_dtype(c, 2 + sum_epsilons(hidden), 2 * kRounded));
}

// dr has few operations, beside which the mean's error is small; dweight is a sum over tokens.
void rms_norm_backward_case(Conformance& c, int64_t tokens, int64_t hidden, DType dweight_dtype, bool accumulate) {
  const Operand r = c.random("r", {tokens, hidden}), weight = c.random("weight", {hidden}, 0.3, 1);
  const Operand rstd = c.random("rstd", {tokens}, DType::kF32, 0.1, 1);
  const Operand dy = c.random("dy", {tokens, hidden}), dr = c.random("dr", {tokens, hidden});
  const Operand dweight =
      accumulate ? c.random("dweight", {hidden}, dweight_dtype) : c.output("dweight", {hidden}, dweight_dtype);
  c.run([&](Ctx& ctx, Side side) {
    rms_norm_backward(ctx, {.r = r[side],
                            .weight = weight[side],
                            .rstd = rstd[side],
                            .dy = dy[side],
                            .dr = dr[side],
                            .dweight = dweight[side],
                            .accumulate = accumulate});
  });
  c.expect_close(dr, by_dtype(c, 8));
  c.expect_close(dweight, dweight_dtype == DType::kBF16 ? kRounded : sum_epsilons(tokens));
}

void rms_norm_backward_large_case(Conformance& c) {  // 13 GiB of the GPU's memory
  constexpr int64_t kTokens = 64, kHidden = 4096;
  const Operand weight = c.random("weight", {kHidden}, 0.3, 1);
  c.repeat(8400);
  const Operand r = c.random("r", {kTokens, kHidden}), rstd = c.random("rstd", {kTokens}, DType::kF32, 0.1, 1);
  const Operand dy = c.random("dy", {kTokens, kHidden}), dr = c.random("dr", {kTokens, kHidden});
  c.run([&](Ctx& ctx, Side side) {
    rms_norm_backward(ctx, {.r = r[side], .weight = weight[side], .rstd = rstd[side], .dy = dy[side], .dr = dr[side]});
  });
  c.expect_close(dr, by_dtype(c, 8));
}

void add_rms_norm_cases(ConformanceCases& cases) {
  struct Size {
    int64_t tokens, hidden;
  };
  // Shapes for one warp, odd rows, the last row that fits in each number of threads, and the first that does not.
  for (const auto [t, h] : {Size{1, 4096}, Size{5, 24}, Size{7, 37}, Size{130, 512}, Size{33, 520}, Size{300, 4096},
                            Size{9, 4104}, Size{4, 6144}, Size{3, 8192}, Size{3, 8200}, Size{2, 20001}, Size{0, 64}})
    for (const bool residual : {false, true})
      cases.push_back(
          {"rms_norm_forward", fmt::format("T{}_H{}{}", t, h, residual ? "_residual" : ""), [=](Conformance& c) {
             rms_norm_forward_case(c, t, h, residual);
           }});
  for (const bool over_x : {false, true})
    cases.push_back({"rms_norm_forward", over_x ? "T40_H4096_over_x" : "T40_H4096_over_delta", [=](Conformance& c) {
                       rms_norm_in_place_case(c, 40, 4096, over_x, 1);
                     }});
  cases.push_back({.op = "rms_norm_forward",
                   .shape = "T537600_H4096",
                   .check = [](Conformance& c) { rms_norm_in_place_case(c, 64, 4096, false, 8400); },
                   .fp32 = false,
                   .large = true});

  for (const auto [t, h] : {Size{1, 4096}, Size{5, 24}, Size{300, 37}, Size{130, 512}, Size{1000, 520}, Size{700, 4096},
                            Size{9, 4104}, Size{3, 8192}, Size{600, 8200}, Size{2, 20001}})
    for (const bool accumulate : {false, true})
      cases.push_back(
          {"rms_norm_backward", fmt::format("T{}_H{}{}", t, h, accumulate ? "_add" : ""), [=](Conformance& c) {
             rms_norm_backward_case(c, t, h, c.dtype(), accumulate);
           }});
  for (const bool accumulate : {false, true})
    cases.push_back({.op = "rms_norm_backward",
                     .shape = accumulate ? "T700_H4096_fp32_dweight_add" : "T700_H4096_fp32_dweight",
                     .check = [=](Conformance& c) { rms_norm_backward_case(c, 700, 4096, DType::kF32, accumulate); },
                     .fp32 = false});
  cases.push_back({.op = "rms_norm_backward",
                   .shape = "T537600_H4096",
                   .check = rms_norm_backward_large_case,
                   .fp32 = false,
                   .large = true});
}

// Both sides take the sine of the same angle, within 2 ulp of 1 each.
void rope_table_case(Conformance& c, int64_t tokens, int64_t dim, double theta) {
  const Operand positions = c.integers("positions", {tokens}, [](int64_t t) { return t * 7919 % 131072; });
  const Operand table = c.output("table", {tokens, dim}, DType::kF32);
  c.run([&](Ctx& ctx, Side side) { rope_table(ctx, positions[side], theta, table[side]); });
  c.expect_close(table, 4);
}

// Each result is two products and a sum, of unbounded table entries.
void rope_case(Conformance& c, RopeArgs args, int64_t tokens, int64_t dim, int64_t times = 1) {
  c.repeat(times);
  const Operand qkv = c.random("qkv", {tokens, (args.q_heads + 2 * args.kv_heads) * dim});
  const Operand table = c.random("table", {tokens, dim}, DType::kF32);
  c.run([&](Ctx& ctx, Side side) {
    args.qkv = qkv[side];
    args.table = table[side];
    rope(ctx, args);
  });
  c.expect_close(qkv, by_dtype(c, 4));
}

void add_rope_cases(ConformanceCases& cases) {
  for (const int64_t dim : {6, 128, 1024})
    cases.push_back({.op = "rope_table",
                     .shape = fmt::format("T3000_D{}", dim),
                     .check = [=](Conformance& c) { rope_table_case(c, 3000, dim, 1e6); },
                     .bf16 = false});
  struct Size {
    int64_t tokens, q_heads, kv_heads, dim;
  };
  for (const auto [t, q, kv, d] : {Size{1, 32, 8, 128}, Size{300, 32, 8, 128}, Size{37, 2, 1, 6}, Size{21, 4, 2, 8},
                                   Size{50, 3, 3, 16}, Size{20, 48, 8, 96}, Size{5, 1, 1, 1024}, Size{0, 4, 2, 16}})
    for (const bool inverse : {false, true})
      cases.push_back(
          {"rope", fmt::format("T{}_q{}_kv{}_D{}{}", t, q, kv, d, inverse ? "_inverse" : ""), [=](Conformance& c) {
             rope_case(c, {.q_heads = q, .kv_heads = kv, .inverse = inverse}, t, d);
           }});
  cases.push_back({.op = "rope",
                   .shape = "T384000_q32_kv8_D128",
                   .check = [](Conformance& c) { rope_case(c, {.q_heads = 32, .kv_heads = 8}, 64, 128, 6000); },
                   .fp32 = false,
                   .large = true});
}

// The exponential is within 2 ulp on each side; four operations follow.
void swiglu_forward_case(Conformance& c, int64_t rows, int64_t ffn, double deviation, int64_t times = 1) {
  c.repeat(times);
  const Operand gate_up = c.random("gate_up", {rows, 2 * ffn}, deviation);
  const Operand weights = c.random("row_weights", {rows}, DType::kF32);
  const Operand act = c.output("act", {rows, ffn});
  c.run([&](Ctx& ctx, Side side) { swiglu_forward(ctx, gate_up[side], weights[side], act[side]); });
  c.expect_close(act, by_dtype(c, 8));
}

enum class Act { kNone, kApart, kInPlace };

// 1 + g (1 - sigmoid) carries the sigmoid's error |g| < 16 times into dgate. Means are not 0 so that drow_weights, a
// sum over F, does not cancel; with bf16 its terms come from the fast exponential, good to 2 + 1.2 |g| ulp.
void swiglu_backward_case(Conformance& c, int64_t rows, int64_t ffn, Act act, int64_t times = 1) {
  c.repeat(times);
  const Operand gate_up = c.random("gate_up", {rows, 2 * ffn}, 3, 0.5);
  const Operand weights = c.random("row_weights", {rows}, DType::kF32);
  const Operand dact = c.random("dact", {rows, ffn}, 1, 0.5);
  const Operand dgate_up = act == Act::kInPlace ? gate_up : c.output("dgate_up", {rows, 2 * ffn});
  const Operand again = act == Act::kNone ? Operand{} : act == Act::kInPlace ? dact : c.output("act", {rows, ffn});
  const Operand dweights = c.output("drow_weights", {rows}, DType::kF32);
  c.run([&](Ctx& ctx, Side side) {
    swiglu_backward(ctx, {.gate_up = gate_up[side],
                          .row_weights = weights[side],
                          .dact = dact[side],
                          .dgate_up = dgate_up[side],
                          .drow_weights = dweights[side],
                          .act = again[side]});
  });
  c.expect_close(dgate_up, by_dtype(c, 32));
  c.expect_close(dweights, by_dtype(c, 8, 32) + sum_epsilons(ffn));
  if (act != Act::kNone) c.expect_close(again, by_dtype(c, 8));
}

void add_swiglu_cases(ConformanceCases& cases) {
  struct Size {
    int64_t rows, ffn;
  };
  constexpr Size kSizes[] = {{1, 14336}, {130, 14336}, {128, 20}, {40, 19}, {5, 511},
                             {6, 512},   {7, 520},     {3, 4099}, {0, 64}};
  for (const auto [r, f] : kSizes) {
    cases.push_back({"swiglu_forward", fmt::format("R{}_F{}", r, f), [=](Conformance& c) {
                       swiglu_forward_case(c, r, f, 3);
                     }});
    cases.push_back({"swiglu_backward", fmt::format("R{}_F{}", r, f), [=](Conformance& c) {
                       swiglu_backward_case(c, r, f, Act::kApart);
                     }});
    cases.push_back({"swiglu_backward", fmt::format("R{}_F{}_in_place", r, f), [=](Conformance& c) {
                       swiglu_backward_case(c, r, f, Act::kInPlace);
                     }});
  }
  cases.push_back({"swiglu_forward", "R64_F256_saturated", [](Conformance& c) {
                     swiglu_forward_case(c, 64, 256, 60);
                   }});
  cases.push_back({"swiglu_backward", "R130_F2048_no_act", [](Conformance& c) {
                     swiglu_backward_case(c, 130, 2048, Act::kNone);
                   }});
  cases.push_back({.op = "swiglu_forward",
                   .shape = "R80000_F14336",
                   .check = [](Conformance& c) { swiglu_forward_case(c, 16, 14336, 3, 5000); },
                   .fp32 = false,
                   .large = true});
  cases.push_back({.op = "swiglu_backward",
                   .shape = "R80000_F14336_in_place",
                   .check = [](Conformance& c) { swiglu_backward_case(c, 16, 14336, Act::kInPlace, 5000); },
                   .fp32 = false,
                   .large = true});
}

void embedding_forward_case(Conformance& c, int64_t tokens, int64_t vocab, int64_t hidden, int64_t times = 1) {
  const Operand table = c.random("table", {vocab, hidden});
  c.repeat(times);
  const uint64_t key = random_key(c.seed(), "ids");
  const Operand ids = c.integers("ids", {tokens}, [&](int64_t t) { return random_below(key, t, vocab); });
  const Operand y = c.output("y", {tokens, hidden});
  c.run([&](Ctx& ctx, Side side) { embedding_forward(ctx, ids[side], table[side], y[side]); });
  c.expect_equal(y);
}

// Rows by id, as data/ makes them: every third token has id 0, the last `dead` rows are in no list.
std::map<int64_t, std::vector<int64_t>> rows_by_id(uint64_t seed, int64_t tokens, int64_t dead, int64_t vocab) {
  std::map<int64_t, std::vector<int64_t>> rows;
  const uint64_t key = random_key(seed, "ids");
  for (int64_t t = 0; t + dead < tokens; ++t)
    rows[t % 3 == 0 ? 0 : static_cast<int64_t>(random_below(key, t, vocab))].push_back(t);
  return rows;
}

// Both sides add in the order of the rows, and round to dtable's dtype once.
void embedding_backward_case(Conformance& c, int64_t tokens, int64_t vocab, int64_t hidden, DType dtable_dtype,
                             bool accumulate) {
  std::vector<int64_t> ids, begin = {0}, rows;
  for (const auto& [id, of_id] : rows_by_id(c.seed(), tokens, tokens / 10, vocab)) {
    ids.push_back(id);
    rows.insert(rows.end(), of_id.begin(), of_id.end());
    begin.push_back(std::ssize(rows));
  }
  const auto list = [&](const char* name, const std::vector<int64_t>& values) {
    return c.integers(name, {std::ssize(values)}, [&](int64_t i) { return values[i]; });
  };
  const Operand unique = list("ids", ids), first = list("begin", begin), order = list("rows", rows);
  const Operand dy = c.random("dy", {tokens, hidden});
  const Operand dtable = accumulate ? c.random("dtable", {vocab, hidden}, dtable_dtype)
                                    : c.output("dtable", {vocab, hidden}, dtable_dtype);
  c.run([&](Ctx& ctx, Side side) {
    embedding_backward(ctx, {.index = {unique[side], first[side], order[side]},
                             .dy = dy[side],
                             .dtable = dtable[side],
                             .accumulate = accumulate});
  });
  c.expect_equal(dtable);
}

void add_embedding_cases(ConformanceCases& cases) {
  struct Size {
    int64_t tokens, vocab, hidden;
  };
  constexpr Size kSizes[] = {{1, 37, 24},       {100, 37, 25},    {0, 37, 24},
                             {700, 2000, 4096}, {64, 3000, 1032}, {300, 32000, 16}};  // B of the embedding's adapter
  for (const auto [t, v, h] : kSizes) {
    const std::string shape = fmt::format("T{}_V{}_H{}", t, v, h);
    cases.push_back({"embedding_forward", shape, [=](Conformance& c) {
                       embedding_forward_case(c, t, v, h);
                     }});
    for (const bool accumulate : {false, true}) {
      const char* suffix = accumulate ? "_add" : "";
      cases.push_back({"embedding_backward", shape + suffix, [=](Conformance& c) {
                         embedding_backward_case(c, t, v, h, c.dtype(), accumulate);
                       }});
      cases.push_back({.op = "embedding_backward",
                       .shape = shape + "_fp32_dtable" + suffix,
                       .check = [=](Conformance& c) { embedding_backward_case(c, t, v, h, DType::kF32, accumulate); },
                       .fp32 = false});
    }
  }
  cases.push_back({.op = "embedding_forward",
                   .shape = "T537600_V100_H4096",
                   .check = [](Conformance& c) { embedding_forward_case(c, 64, 100, 4096, 8400); },
                   .fp32 = false,
                   .large = true});
}

}  // namespace

ConformanceCases elementwise_cases() {
  ConformanceCases cases;
  add_rms_norm_cases(cases);
  add_rope_cases(cases);
  add_swiglu_cases(cases);
  add_embedding_cases(cases);
  return cases;
}

}  // namespace mixtune
