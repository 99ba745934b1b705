// The router's weights and losses against Megatron-Core's own functions (tests/fixtures/router.json, by
// scripts/make_router_fixtures.py), whose softmax is in fp32.
#include <fstream>
#include <string>
#include <vector>

#include "base/json_value.h"
#include "base/test_paths.h"
#include "kernels/moe/router.h"
#include "kernels/moe/router_loss.h"
#include "kernels/moe/router_own_loss.h"
#include "kernels/moe/sinkhorn.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

using Json = nlohmann::json;

constexpr double kFp32Softmax = 1e-6;

Json megatron_fixture(const char* part) {
  std::ifstream file(source_path("tests/fixtures/router.json"));
  return Json::parse(file).at(part);
}

template <class S>
Buffer<S> buffer_of(const Json& numbers, Shape shape) {
  Buffer<S> buffer(shape);
  for (int64_t i = 0; i < buffer.size(); ++i) buffer[i] = numbers.at(i).get<S>();
  return buffer;
}

Scoring scoring_of(const Json& json) {
  if (json.at("function") == "sigmoid") return Scoring::kSigmoid;
  return json.value("pre_softmax", false) ? Scoring::kPreSoftmax : Scoring::kSoftmax;
}

// A layer's tokens, routed.
struct MegatronCase {
  const Json& json;
  int64_t experts = json.at("experts"), k = json.at("k");
  int64_t tokens = static_cast<int64_t>(json.at("logits").size()) / experts;
  TestCtx ctx;
  Buffer<double> logits = buffer_of<double>(json.at("logits"), {tokens, experts}), weights{{tokens, k}};
  Buffer<double> stats{{1, 2, experts}}, loss{{1}}, dlogits{{tokens, experts}};
  Buffer<int32_t> chosen{{tokens, k}};
  RouterScores scores = {scoring_of(json), json.value("scaling", 1.0), json.contains("bias")};
  Buffer<float> bias = buffer_of<float>(json.value("bias", Json(std::vector<float>(experts))), {experts});

  Buffer<double> offsets{{experts}};

  explicit MegatronCase(const Json& of) : json(of) {
    const bool balances = json.contains("balanced");
    if (balances) sinkhorn(ctx, {.logits = logits, .live = tokens, .offsets = offsets});
    router_forward(ctx, {.logits = logits,
                         .live = tokens,
                         .experts = chosen,
                         .weights = weights,
                         .stats = stats.tensor().view({2, experts}),
                         .scores = scores,
                         .bias = scores.expert_bias ? bias.tensor() : Tensor{},
                         .offsets = balances ? offsets.tensor() : Tensor{}});
  }
  // dlogits of dweights [T, k] and of the gradient of losses of counts.
  void backward(const Tensor& dweights, const Tensor& prob_grad) {
    router_backward(ctx, {.logits = logits,
                          .experts = chosen,
                          .weights = weights,
                          .dweights = dweights,
                          .prob_grad = prob_grad,
                          .live = tokens,
                          .dlogits = dlogits,
                          .scores = scores});
  }
  void expect(const std::string& name, double scale) {
    EXPECT_NEAR(scale * loss[0], json.at("values").at(name).get<double>(), kFp32Softmax) << name;
    const Json& gradient = json.at("gradients").at(name);
    for (int64_t i = 0; i < dlogits.size(); ++i)
      EXPECT_NEAR(dlogits[i], gradient.at(i).get<double>(), kFp32Softmax) << name;
  }
};

void expect_weights_and_gradient(const char* part) {
  for (const Json& json : megatron_fixture(part)) {
    SCOPED_TRACE(json.dump().substr(0, 60));
    MegatronCase c(json);
    const Buffer<double> all_dweights = buffer_of<double>(json.at("dweights"), {c.tokens, c.experts});
    Buffer<double> all_weights({c.tokens, c.experts}), dweights({c.tokens, c.k});
    for (int64_t pair = 0; pair < c.tokens * c.k; ++pair) {
      const int64_t place = pair / c.k * c.experts + c.chosen[pair];
      all_weights[place] = c.weights[pair];
      dweights[pair] = all_dweights[place];
    }
    c.backward(dweights, {});
    for (int64_t i = 0; i < all_weights.size(); ++i) {
      EXPECT_NEAR(all_weights[i], json.at("weights").at(i).get<double>(), kFp32Softmax);
      EXPECT_NEAR(c.dlogits[i], json.at("gradient").at(i).get<double>(), kFp32Softmax);
    }
  }
}

TEST(MegatronRouter, WeightsAndTheirGradient) {
  expect_weights_and_gradient("scores");
}

// A bias chooses other experts, whose tokens are counted; its losses count those of the choice without it.
TEST(MegatronRouter, WeightsOfABiasedChoice) {
  expect_weights_and_gradient("biased");
  for (const Json& json : megatron_fixture("biased")) {
    Json unbiased = json;
    unbiased.erase("bias");
    MegatronCase chosen(json), counted(unbiased);
    for (int64_t e = 0; e < chosen.experts; ++e) {
      EXPECT_EQ(chosen.stats[e], json.at("counts").at(e).get<double>());
      EXPECT_EQ(counted.stats[e], json.at("loss_counts").at(e).get<double>());
    }
  }
}

// Sinkhorn's own result is fp32, and reached from logits and offsets: exp(l + offset), each row scaled to 1 / T.
TEST(MegatronRouter, WeightsOfSinkhornsChoice) {
  expect_weights_and_gradient("sinkhorn");
  for (const Json& json : megatron_fixture("sinkhorn")) {
    MegatronCase c(json);
    std::vector<int> chosen(static_cast<size_t>(c.logits.size()));
    for (int64_t pair = 0; pair < c.tokens * c.k; ++pair) ++chosen[pair / c.k * c.experts + c.chosen[pair]];
    EXPECT_EQ(chosen, json.at("chosen").get<std::vector<int>>());
    for (int64_t t = 0; t < c.tokens; ++t) {
      double ours = 0, theirs = 0;
      const auto balanced = [&](int64_t e) {
        return json.at("balanced").at(t * c.experts + e).get<double>();
      };
      for (int64_t e = 0; e < c.experts; ++e) {
        ours += std::exp(c.logits[t * c.experts + e] + c.offsets[e]);
        theirs += balanced(e);
      }
      for (int64_t e = 0; e < c.experts; ++e)
        EXPECT_NEAR(std::exp(c.logits[t * c.experts + e] + c.offsets[e]) / ours, balanced(e) / theirs, 1e-5);
    }
  }
}

TEST(MegatronRouter, LossesOfCounts) {
  for (const Json& json : megatron_fixture("losses"))
    for (const RouterLossType type : {RouterLossType::kSwitch, RouterLossType::kGlobal}) {
      MegatronCase c(json);
      Buffer<double> counts = buffer_of<double>(json.at("earlier_counts"), {1, c.experts}), prob_grad({1, c.experts});
      router_loss(c.ctx, {.type = type,
                          .stats = c.stats,
                          .tokens = c.tokens,
                          .scale = 1,
                          .prob_grad = prob_grad,
                          .loss = c.loss,
                          .experts_per_token = c.k,
                          .counts = counts,
                          .counted_tokens = 2 * c.tokens});
      Buffer<double> dweights({c.tokens, c.k});
      c.backward(dweights, prob_grad.tensor().row(0));
      c.expect(type == RouterLossType::kSwitch ? "aux_loss" : "global_aux_loss", 1);
    }
}

TEST(MegatronRouter, LossesOfTokensAndDocuments) {
  for (const Json& json : megatron_fixture("losses")) {
    MegatronCase z(json), sequence(json);
    const double of_a_token = 1 / static_cast<double>(z.tokens);
    router_z_loss(z.ctx, {z.logits, z.tokens, of_a_token, z.dlogits, z.loss});
    z.expect("z", of_a_token);
    const auto ends = static_cast<int64_t>(json.at("doc_offsets").size());
    Buffer<int32_t> offsets = buffer_of<int32_t>(json.at("doc_offsets"), {ends});
    const double of_a_document = 1 / static_cast<double>(ends - 1);
    router_sequence_loss(sequence.ctx, {.logits = sequence.logits,
                                        .experts = sequence.chosen,
                                        .doc_offsets = offsets,
                                        .live = sequence.tokens,
                                        .scale = of_a_document,
                                        .dlogits = sequence.dlogits,
                                        .loss = sequence.loss,
                                        .scoring = sequence.scores.scoring});
    sequence.expect("seq_aux_loss", of_a_document);
  }
}

}  // namespace
}  // namespace mixtune
