// The router's choice and weights, and its losses.
#include <cmath>
#include <limits>

#include "conformance/cases.h"
#include "conformance/tolerances.h"
#include "kernels/moe/router.h"
#include "kernels/moe/router_health.h"
#include "kernels/moe/router_loss.h"
#include "kernels/moe/router_noise.h"
#include "kernels/moe/router_own_loss.h"
#include "kernels/moe/sinkhorn.h"

namespace mixtune {

namespace {

// The expert of a pair where the case gives them: those of a token differ.
int64_t some_expert(int64_t pair, int64_t k, int64_t experts, int64_t live) {
  const int64_t t = pair / k, slot = pair % k;
  return t < live ? (t * t + slot) % experts : -1;
}

constexpr RouterScores kScaled = {Scoring::kSoftmax, 2.5}, kPreSoftmax = {Scoring::kPreSoftmax, 0.5},
                       kSigmoid = {Scoring::kSigmoid, 2.5}, kBiased = {Scoring::kSigmoid, 2.5, true};

struct Routed {
  int64_t tokens, live, experts, k;
  bool forced = false, ties = false;
  RouterScores scores = {};
};

// The same fp32 logits on both sides, so the same choice. A weight is a quotient of exponentials or sigmoids, each
// within 2 or 4 epsilons (CUDA's expf); sums of probabilities have the errors of their terms.
void forward_case(Conformance& c, const Routed& shape) {
  const Operand logits = shape.ties ? c.random("logits", {shape.tokens, shape.experts}, DType::kF32, 0, 0.75)
                                    : c.random("logits", {shape.tokens, shape.experts}, DType::kF32, 3);
  const Operand experts =
      shape.forced ? c.integers("experts", {shape.tokens, shape.k},
                                [&](int64_t i) { return some_expert(i, shape.k, shape.experts, shape.live); })
                   : c.output("experts", {shape.tokens, shape.k}, DType::kI32);
  const Operand weights = c.output("weights", {shape.tokens, shape.k}, DType::kF32);
  const Operand stats = c.output("stats", {2, shape.experts}, DType::kF64);
  const Operand bias = c.random("bias", {shape.experts}, DType::kF32, 0.3);
  c.run([&](Ctx& ctx, Side side) {
    router_forward(ctx, {.logits = logits[side],
                         .live = shape.live,
                         .experts = experts[side],
                         .weights = weights[side],
                         .stats = stats[side],
                         .forced = shape.forced,
                         .scores = shape.scores,
                         .bias = shape.scores.expert_bias ? bias[side] : Tensor{}});
  });
  c.expect_equal(experts);
  c.expect_close(weights, 8);
  c.expect_close(stats, 8);
}

// The gradient has as many roundings as the forward pass, and the sums over experts.
void backward_case(Conformance& c, const Routed& shape, bool aux) {
  const Operand logits = c.random("logits", {shape.tokens, shape.experts}, DType::kF32);
  const Operand experts = c.integers("experts", {shape.tokens, shape.k},
                                     [&](int64_t i) { return some_expert(i, shape.k, shape.experts, shape.live); });
  const Operand weights = c.random("weights", {shape.tokens, shape.k}, DType::kF32, 0.1, 0.5);
  const Operand dweights = c.random("dweights", {shape.tokens, shape.k}, DType::kF32);
  const Operand prob_grad = c.doubles("prob_grad", {shape.experts}, [](int64_t e) { return std::sin(e + 1.0); });
  const Operand dlogits = c.output("dlogits", {shape.tokens, shape.experts}, DType::kF32);
  c.run([&](Ctx& ctx, Side side) {
    router_backward(ctx, {.logits = logits[side],
                          .experts = experts[side],
                          .weights = weights[side],
                          .dweights = dweights[side],
                          .prob_grad = aux ? prob_grad[side] : Tensor{},
                          .live = shape.live,
                          .dlogits = dlogits[side],
                          .scores = shape.scores});
  });
  c.expect_close(dlogits, 8 + walk(shape.experts));
}

// Both sides compute in fp64.
void loss_case(Conformance& c, RouterLossType type, int64_t layers, int64_t experts, bool accumulate) {
  const Operand stats = c.doubles("stats", {layers, 2, experts}, [](int64_t i) { return 100 + 37 * std::cos(i); });
  const Operand prob_grad =
      accumulate ? c.doubles("prob_grad", {layers, experts}, [](int64_t i) { return std::sin(i) * 1e-5; })
                 : c.output("prob_grad", {layers, experts}, DType::kF64);
  const Operand counts = c.doubles("counts", {layers, experts}, [](int64_t i) { return 300 + 50 * std::sin(i); });
  const Operand loss = c.doubles("loss", {1}, [](int64_t) { return 0.5; });
  c.run([&](Ctx& ctx, Side side) {
    router_loss(ctx, {.type = type,
                      .stats = stats[side],
                      .tokens = 100 * experts,
                      .scale = 0.02,
                      .prob_grad = prob_grad[side],
                      .loss = loss[side],
                      .accumulate = accumulate,
                      .experts_per_token = 2,
                      .counts = counts[side],
                      .counted_tokens = 250 * experts});
  });
  c.expect_close(prob_grad, 1e-6);
  c.expect_close(counts, 1e-6);
  c.expect_close(loss, 1e-6);
}

// The log-sum-exp has the errors of a sum of exponentials and of a logarithm; a loss sums the squares in fp64.
void z_loss_case(Conformance& c, const Routed& shape) {
  const Operand logits = c.random("logits", {shape.tokens, shape.experts}, DType::kF32, 3);
  const Operand dlogits = c.random("dlogits", {shape.tokens, shape.experts}, DType::kF32);
  const Operand loss = c.doubles("loss", {1}, [](int64_t) { return 0.5; });
  c.run([&](Ctx& ctx, Side side) {
    router_z_loss(
        ctx, {.logits = logits[side], .live = shape.live, .scale = 0.1, .dlogits = dlogits[side], .loss = loss[side]});
  });
  c.expect_close(dlogits, 8 + walk(shape.experts));
  c.expect_close(loss, 8);
}

// Entropies are sums of terms of one sign, each of a few roundings and the error of a token's log-sum-exp.
void health_case(Conformance& c, const Routed& shape) {
  const Operand logits = c.random("logits", {shape.tokens, shape.experts}, DType::kF32, 3);
  const Operand stats = c.doubles("stats", {2, shape.experts}, [](int64_t i) { return static_cast<double>(i % 7); });
  const Operand tally = c.doubles("tally", {router_tally_size(shape.experts)}, [](int64_t) { return 0.5; });
  c.run([&](Ctx& ctx, Side side) {
    router_health(ctx, {.logits = logits[side], .live = shape.live, .stats = stats[side], .tally = tally[side]});
  });
  c.expect_close(tally, 8 + walk(shape.experts));
}

// A product and a sum, with a factor that may differ in its last bit.
void jitter_case(Conformance& c, int64_t tokens, int64_t hidden) {
  const Operand x = c.random("x", {tokens, hidden}), y = c.output("y", {tokens, hidden}),
                sum = c.random("sum", {tokens, hidden});
  c.run([&](Ctx& ctx, Side side) {
    RouterJitter args = {.x = x[side], .y = y[side], .key = 5, .first_token = 1 << 20, .eps = 0.25};
    router_jitter(ctx, args);
    args.y = sum[side];
    args.accumulate = true;
    router_jitter(ctx, args);
  });
  c.expect_close(y, 4);
  c.expect_close(sum, 4);
}

void draw_case(Conformance& c, const Routed& shape) {
  const Operand experts = c.output("experts", {shape.tokens, shape.k}, DType::kI32);
  c.run([&](Ctx& ctx, Side side) {
    draw_experts(ctx, {.experts = experts[side],
                       .all_experts = shape.experts,
                       .live = shape.live,
                       .key = 5,
                       .first_token = int64_t{1} << 33});
  });
  c.expect_equal(experts);
}

// Experts that are as far apart as tokens make them, so that rounds are needed. A round more or less, where rounding
// decides which is the last, moves a factor by about the tolerance; the choice by the offsets is that of the same ones.
void sinkhorn_case(Conformance& c, const Routed& shape, double deviation) {
  const Operand logits = c.random("logits", {shape.tokens, shape.experts}, DType::kF32, deviation);
  const Operand offsets = c.output("offsets", {shape.experts}, DType::kF32);
  const Operand given = c.random("given", {shape.experts}, DType::kF32);
  const Operand experts = c.output("experts", {shape.tokens, shape.k}, DType::kI32);
  const Operand weights = c.output("weights", {shape.tokens, shape.k}, DType::kF32);
  const Operand stats = c.output("stats", {2, shape.experts}, DType::kF64);
  c.run([&](Ctx& ctx, Side side) {
    sinkhorn(ctx, {.logits = logits[side], .live = shape.live, .offsets = offsets[side]});
    router_forward(ctx, {.logits = logits[side],
                         .live = shape.live,
                         .experts = experts[side],
                         .weights = weights[side],
                         .stats = stats[side],
                         .scores = kPreSoftmax,
                         .offsets = given[side]});
  });
  c.expect_close(offsets, 10 * kSinkhornTolerance / std::numeric_limits<float>::epsilon());
  c.expect_equal(experts);
  c.expect_close(weights, 8);
}

// Documents of 1, 2, 3, ... tokens, and a last one of what is left.
void sequence_loss_case(Conformance& c, const Routed& shape) {
  int64_t documents = 0;
  while ((documents + 1) * (documents + 2) / 2 < shape.live) ++documents;
  const Operand logits = c.random("logits", {shape.tokens, shape.experts}, DType::kF32, 3);
  const Operand experts = c.integers("experts", {shape.tokens, shape.k},
                                     [&](int64_t i) { return some_expert(i, shape.k, shape.experts, shape.live); });
  const Operand offsets = c.integers("doc_offsets", {documents + 2},
                                     [&](int64_t d) { return d <= documents ? d * (d + 1) / 2 : shape.live; });
  const Operand dlogits = c.random("dlogits", {shape.tokens, shape.experts}, DType::kF32);
  const Operand loss = c.doubles("loss", {1}, [](int64_t) { return 0.5; });
  c.run([&](Ctx& ctx, Side side) {
    router_sequence_loss(ctx, {.logits = logits[side],
                               .experts = experts[side],
                               .doc_offsets = offsets[side],
                               .live = shape.live,
                               .scale = 0.1,
                               .dlogits = dlogits[side],
                               .loss = loss[side],
                               .scoring = shape.scores.scoring});
  });
  c.expect_close(dlogits, 8 + walk(shape.experts));
  c.expect_close(loss, 8);
}

}  // namespace

ConformanceCases router_cases() {
  ConformanceCases cases;
  // Logits, weights and their gradients are fp32 whatever the model's dtype.
  const auto forward = [&](const char* shape, const Routed& args) {
    cases.push_back({"router_forward", shape, [=](Conformance& c) { forward_case(c, args); }, true, false});
  };
  forward("T20000_E8_k2", {20000, 19900, 8, 2});
  forward("T1_E8_k2", {1, 1, 8, 2});
  forward("T200_none_live", {200, 0, 8, 2});
  forward("T130_E4_k1", {130, 130, 4, 1});
  forward("T130_E5_k5", {130, 101, 5, 5});
  forward("T130_E33_k8", {130, 129, 33, 8});
  forward("T300_E256_k8", {300, 299, 256, 8});
  forward("T60_E700_k32", {60, 59, 700, 32});
  forward("T40_E1_k1", {40, 39, 1, 1});
  forward("T90_E40_k3_ties", {90, 90, 40, 3, false, true});
  forward("T500_E8_k2_forced", {500, 470, 8, 2, true});
  forward("T3000_E8_k2_sigmoid", {3000, 2900, 8, 2, false, false, kSigmoid});
  forward("T500_E8_k2_biased", {500, 470, 8, 2, false, false, kBiased});
  forward("T60_E700_k32_biased", {60, 59, 700, 32, false, false, kBiased});
  forward("T130_E4_k1_sigmoid", {130, 130, 4, 1, false, false, kSigmoid});
  forward("T60_E700_k32_sigmoid", {60, 59, 700, 32, false, false, kSigmoid});
  forward("T3000_E8_k2_pre_softmax", {3000, 2900, 8, 2, false, false, kPreSoftmax});
  forward("T130_E4_k1_pre_softmax", {130, 130, 4, 1, false, false, kPreSoftmax});
  forward("T300_E256_k8_pre_softmax", {300, 299, 256, 8, false, false, kPreSoftmax});
  forward("T500_E8_k2_pre_softmax_forced", {500, 470, 8, 2, true, false, kPreSoftmax});
  forward("T500_E8_k2_scaled", {500, 470, 8, 2, false, false, kScaled});

  const auto backward = [&](const char* shape, const Routed& args, bool aux) {
    cases.push_back({"router_backward", shape, [=](Conformance& c) { backward_case(c, args, aux); }, true, false});
  };
  backward("T3000_E8_k2", {3000, 2900, 8, 2}, false);
  backward("T3000_E8_k2_aux", {3000, 2900, 8, 2}, true);
  backward("T1_E8_k2_aux", {1, 1, 8, 2}, true);
  backward("T50_E5_k5_aux", {50, 41, 5, 5}, true);
  backward("T50_E100_k8_aux", {50, 50, 100, 8}, true);
  backward("T50_E700_k4_aux", {50, 50, 700, 4}, true);
  backward("T30_none_live_aux", {30, 0, 8, 2}, true);
  backward("T3000_E8_k2_sigmoid", {3000, 2900, 8, 2, false, false, kSigmoid}, false);
  backward("T50_E100_k8_sigmoid_aux", {50, 50, 100, 8, false, false, kSigmoid}, true);
  backward("T50_E5_k1_sigmoid_aux", {50, 41, 5, 1, false, false, kSigmoid}, true);
  backward("T3000_E8_k2_pre_softmax", {3000, 2900, 8, 2, false, false, kPreSoftmax}, false);
  backward("T50_E700_k4_pre_softmax_aux", {50, 50, 700, 4, false, false, kPreSoftmax}, true);
  backward("T50_E5_k1_pre_softmax", {50, 41, 5, 1, false, false, kPreSoftmax}, false);
  backward("T50_E8_k2_scaled_aux", {50, 41, 8, 2, false, false, kScaled}, true);

  const auto loss = [&](const char* shape, RouterLossType type, int64_t layers, int64_t experts, bool accumulate) {
    cases.push_back(
        {"router_loss", shape, [=](Conformance& c) { loss_case(c, type, layers, experts, accumulate); }, true, false});
  };
  loss("L32_E8", RouterLossType::kHuggingface, 32, 8, false);
  loss("L1_E300", RouterLossType::kHuggingface, 1, 300, false);
  loss("L32_E8_switch", RouterLossType::kSwitch, 32, 8, false);
  loss("L3_E300_switch_accumulate", RouterLossType::kSwitch, 3, 300, true);
  loss("L32_E8_global", RouterLossType::kGlobal, 32, 8, false);
  loss("L56_E8_global_accumulate", RouterLossType::kGlobal, 56, 8, true);

  const auto own = [&](const char* shape, const Routed& args) {
    cases.push_back({"router_z_loss", shape, [=](Conformance& c) { z_loss_case(c, args); }, true, false});
    cases.push_back({"router_sequence_loss", shape, [=](Conformance& c) { sequence_loss_case(c, args); }, true, false});
  };
  own("T3000_E8_k2", {3000, 2900, 8, 2});
  own("T1_E8_k2", {1, 1, 8, 2});
  own("T130_E33_k8", {130, 129, 33, 8});
  own("T60_E700_k32", {60, 59, 700, 32});
  own("T40_E1_k1", {40, 39, 1, 1});

  const auto health = [&](const char* shape, const Routed& args) {
    cases.push_back({"router_health", shape, [=](Conformance& c) { health_case(c, args); }, true, false});
  };
  health("T20000_E8", {20000, 19900, 8, 2});
  health("T1_E8", {1, 1, 8, 2});
  health("T200_none_live", {200, 0, 8, 2});
  health("T130_E33", {130, 129, 33, 8});
  health("T60_E700", {60, 59, 700, 32});
  health("T40_E1", {40, 39, 1, 1});

  for (const auto& [shape, hidden] : {std::pair("T300_H4096", 4096), std::pair("T300_H37_odd", 37)})
    cases.push_back({"router_jitter", shape, [hidden = hidden](Conformance& c) {
                       jitter_case(c, 300, hidden);
                     }});
  const auto balanced = [&](const char* shape, const Routed& args, double deviation) {
    cases.push_back({"sinkhorn", shape, [=](Conformance& c) { sinkhorn_case(c, args, deviation); }, true, false});
  };
  balanced("T65536_E8_k2", {65536, 65500, 8, 2}, 1);
  balanced("T4096_E256_k8", {4096, 4090, 256, 8}, 0.5);
  balanced("T300_E8_k2_far", {300, 299, 8, 2}, 30);
  balanced("T60_E700_k32", {60, 59, 700, 32}, 0.5);
  balanced("T1_E8_k1", {1, 1, 8, 1}, 1);
  const auto draw = [&](const char* shape, const Routed& args) {
    cases.push_back({"draw_experts", shape, [=](Conformance& c) { draw_case(c, args); }, true, false});
  };
  draw("T3000_E8_k2", {3000, 2900, 8, 2});
  draw("T60_E700_k32", {60, 59, 700, 32});
  draw("T200_none_live", {200, 0, 8, 2});

  const auto of_sigmoids = [&](const char* shape, const Routed& args) {
    cases.push_back({"router_sequence_loss", shape, [=](Conformance& c) { sequence_loss_case(c, args); }, true, false});
  };
  of_sigmoids("T3000_E8_k2_sigmoid", {3000, 2900, 8, 2, false, false, kSigmoid});
  of_sigmoids("T60_E700_k32_sigmoid", {60, 59, 700, 32, false, false, kSigmoid});
  return cases;
}

}  // namespace mixtune
