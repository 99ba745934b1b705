// The scores of the router (docs/router.md): what weights a token's experts get.
#pragma once

#include <cstdint>
#include <string>

namespace mixtune {

struct Config;
struct RouterSettings;

// What a weight is before `scaling`. Whichever it is, the experts of the largest logits are chosen; with a bias those
// whose score and bias add up to most.
enum class Scoring : uint8_t {
  kSoftmax,     // the softmax over the k chosen logits
  kPreSoftmax,  // the chosen experts' part of the softmax over all logits, as it is
  kSigmoid      // the sigmoid of the logit, divided by the sum of the k where k > 1
};

struct RouterScores {
  Scoring scoring = Scoring::kSoftmax;
  double scaling = 1;        // of every weight
  bool expert_bias = false;  // of kSigmoid alone: a number of each expert, which its weights do not have

  bool operator==(const RouterScores&) const = default;
};

// What the settings say; where they say nothing, `own`, the checkpoint's.
RouterScores router_scores(const RouterSettings& settings, const RouterScores& own);

// Those of a model whose experts sinkhorn chooses in training, as in Megatron-Core: parts of the softmax over all
// experts, of one expert the sigmoid. Whatever scoring is the checkpoint's own is replaced. Throws UserError for a key
// that says others, for a scaling, and for what else chooses experts.
RouterScores sinkhorn_scores(const Config& config, const RouterScores& own, int64_t experts_per_token);

// "sigmoid with an expert bias, times 2.5".
std::string describe(const RouterScores& scores);

// Whether transformers' Mixtral weighs k of E experts so.
bool is_of_transformers(const RouterScores& scores, int64_t k, int64_t experts);
// What to tell of a model with scores that are not of transformers.
inline constexpr const char* kUnknownToTransformers =
    "transformers' Mixtral has no such scores: of this model it would compute something else, and mixtune alone reads "
    "them in its config.json (docs/router.md)";

// Bounds of `scaling`, and of a bias: scores are below 1, so that it says nothing more long before.
inline constexpr double kLeastScoreScaling = 1e-6, kMostScoreScaling = 1e6, kMostExpertBias = 1e6;

// Added to sums of sigmoids that something is divided by, as Megatron-Core does.
inline constexpr double kSigmoidSumEpsilon = 1e-20;

}  // namespace mixtune
