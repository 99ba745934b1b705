// How far bf16 may be off, from what the fp32 reference itself makes of noise.
//
// Rounding to bf16 makes an error whose rms is kRounding of the value (uniform within half a unit of the last place, of
// a significand whose logarithm is uniform: 2^-8 / sqrt(8 ln 2)). Errors of roundings one after the other are
// independent: their squares add up. What becomes of them differs from token to token, as its experts, its attention
// and its residual stream happen to be conditioned. So the reference runs again with normal noise on the input of every
// layer, as much as the roundings inside that layer make, and the rms of what that changes is a token's sigma.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "base/random.h"
#include "gpu/replay.h"

namespace mixtune {

constexpr double kRounding = 0.4247 * 0x1p-8;

// What is rounded in a layer: norm, qkv, RoPE, probabilities, attention's output, its projection, residual; norm,
// gate-up, activation, rows, residual. Behind the last one: the final norm. Logits are fp32.
constexpr int64_t kLayerRoundings = 12, kFinalRoundings = 1;
// Backward: activation, gate-up, rows, their sum, the router's part, residual; attention's output, probabilities,
// scores, qkv, RoPE, norm, residual. Before the last layer: logits, final norm, residual.
constexpr int64_t kLayerBackwardRoundings = 13, kHeadBackwardRoundings = 3;

constexpr int kForwardRuns = 16, kBackwardRuns = 4;

// x [T, H] += normal noise as of `roundings` of each row, on the CPU.
inline void add_noise(const Tensor& x, int64_t roundings, uint64_t key) {
  const int64_t width = x.row_elements();
  const double relative = kRounding * std::sqrt(static_cast<double>(roundings));
#pragma omp parallel for
  for (int64_t t = 0; t < x.rows(); ++t) {
    float* row = x.as<float>() + t * width;
    double squares = 0;
    for (int64_t i = 0; i < width; ++i) squares += row[i] * row[i];
    const double sigma = relative * std::sqrt(squares / static_cast<double>(width));
    for (int64_t i = 0; i < width; ++i) row[i] += static_cast<float>(sigma * random_normal(key, t * width + i));
  }
}

inline BetweenLayers noise_of_run(const MixtralConfig& config, int run) {
  const int64_t layers = config.num_hidden_layers;
  const uint64_t key = random_key(run, "noise, forward");
  return [=](int64_t layer, const Tensor& h) {
    add_noise(h, layer < layers ? kLayerRoundings : kFinalRoundings, random_bits(key, layer));
  };
}

// The noise of logits = weight x, x = scale * a normed row. Noise of x mostly has no preferred direction: then that of
// a logit is a token's noise times the norm of weight's row. Where it has one (two keys, or a few units of an expert,
// on a balance), the logit's own noise may be larger.
class LogitNoise {
 public:
  LogitNoise(const Tensor& weight, const Tensor& scale, const HostCopy& reference)
      : weight_(weight),
        scale_(scale),
        reference_(reference),
        squares_(reference.tensor().elements(), 0.0),
        token_squares_(reference.tensor().rows(), 0.0) {
    for (int64_t i = 0; i < weight.rows(); ++i) norms_.push_back(row_norm(i, -1));
  }

  void add_run(const HostCopy& noisy) {
    const Tensor want = reference_.tensor(), got = noisy.tensor();
    const int64_t n = logits();
#pragma omp parallel for
    for (int64_t t = 0; t < want.rows(); ++t)
      for (int64_t i = 0; i < n; ++i) {
        const double unit = (element(got, t * n + i) - element(want, t * n + i)) / norms_[i];
        squares_[t * n + i] += unit * unit / kForwardRuns;
        token_squares_[t] += unit * unit / static_cast<double>(kForwardRuns * n);
      }
  }

  int64_t logits() const {
    return weight_.rows();
  }
  // Of logit a of a token; of the difference between two.
  double sigma(int64_t token, int64_t a) const {
    return std::sqrt(std::max(squares_[token * logits() + a], token_squares_[token])) * norms_[a];
  }
  double sigma(int64_t token, int64_t a, int64_t b) const {
    return std::sqrt(token_squares_[token]) * row_norm(a, b);
  }

 private:
  // Of row a, or of row a - row b.
  double row_norm(int64_t a, int64_t b) const {
    double squares = 0;
    for (int64_t i = 0; i < scale_.elements(); ++i) {
      const double other = b < 0 ? 0 : element(weight_.row(b), i);
      squares += std::pow((element(weight_.row(a), i) - other) * element(scale_, i), 2);
    }
    return std::sqrt(squares);
  }

  Tensor weight_, scale_;
  const HostCopy& reference_;
  std::vector<double> squares_;        // of each token's each logit, in units of norms_
  std::vector<double> token_squares_;  // their means
  std::vector<double> norms_;          // of each row of weight
};

// Of the logits and of all routers' logits. routing: Saved.forced, the reference's own.
class ForwardNoise {
 public:
  ForwardNoise(Instance& cpu, const Batch& batch, const Forward& reference, const std::vector<Tensor>& routing) {
    const MixtralConfig& config = cpu.model().config();
    const ModelParams params = make_layout(config).params;
    const auto weight = [&](int param) {
      return cpu.state().weight(param);
    };
    for (int64_t l = 0; l < config.num_hidden_layers; ++l)
      noise_.emplace_back(weight(params.layers[l].router), weight(params.layers[l].post_norm),
                          reference.router_logits[l]);
    noise_.emplace_back(weight(params.lm_head), weight(params.final_norm), reference.logits);
    for (int run = 0; run < kForwardRuns; ++run) {
      const Forward noisy = run_forward(cpu, batch, routing, noise_of_run(config, run));
      for (int64_t l = 0; l < config.num_hidden_layers; ++l) noise_[l].add_run(noisy.router_logits[l]);
      noise_.back().add_run(noisy.logits);
    }
  }

  const LogitNoise& router(int64_t layer) const { return noise_[layer]; }
  const LogitNoise& head() const { return noise_.back(); }

 private:
  std::vector<LogitNoise> noise_;
};

// Gradients of the batch's loss with the noise of a run, forward and backward.
inline HostCopies noisy_gradients(Instance& cpu, const Batch& batch, const std::vector<Tensor>& routing, int run) {
  Ctx& ctx = cpu.ctx();
  const Mixtral& model = cpu.model();
  const MixtralConfig& config = model.config();
  const Frame frame(ctx);
  Saved saved = model.make_saved();
  saved.forced = routing;
  cpu.state().gradients().begin_step();
  const ForwardPass forward = forward_pass(ctx, model, batch, saved, true, noise_of_run(config, run));
  const uint64_t key = random_key(run, "noise, backward");
  const int64_t layers = config.num_hidden_layers;
  const auto add_backward_noise = [=](int64_t layer, const Tensor& dh) {
    if (layer + 1 == layers) add_noise(dh, kHeadBackwardRoundings, random_bits(key, layers));
    add_noise(dh, kLayerBackwardRoundings, random_bits(key, layer));
  };
  backward_pass(ctx, model, forward, saved,
                {.token_scale = 1 / static_cast<double>(batch.target_tokens()),
                 .router = {RouterLossType::kHuggingface, config.router_aux_loss_coef},
                 .before_backward = add_backward_noise},
                ctx.stack.push("losses", {kLosses}, DType::kF64));
  return HostCopies(ctx, cpu.state(), [&](int p) { return cpu.state().gradients().finished(ctx, p); });
}

// The rms of each hub tensor's relative error of norm.
inline std::map<std::string, double> gradient_noise(Instance& cpu, const Batch& batch,
                                                    const std::map<std::string, Tensor>& reference,
                                                    const std::vector<Tensor>& routing) {
  std::map<std::string, double> squares;
  for (int run = 0; run < kBackwardRuns; ++run) {
    const HostCopies noisy = noisy_gradients(cpu, batch, routing, run);
    for (const auto& [name, gradient] : by_hub_name(cpu.state(), noisy)) {
      NormError error;
      error.add(gradient, reference.at(name));
      squares[name] += error.difference / error.reference / kBackwardRuns;
    }
  }
  for (auto& [name, square] : squares) square = std::sqrt(square);
  return squares;
}

}  // namespace mixtune
