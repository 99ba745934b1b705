// A few optimizer steps of the small model on made-up documents, and their results by Hugging Face's names: so that
// runs on any layout can be compared (docs/design.md, section 4).
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "data/label.h"
#include "data/loader.h"
#include "data/memory_documents.h"
#include "sameness.h"
#include "train/memory_plan.h"
#include "train/step_runner.h"
#include "train/testing.h"
#include "train/warm_up.h"

namespace mixtune {

inline MixtralConfig config_with_experts(int64_t experts, int64_t per_token) {
  MixtralConfig config = testing_config();
  config.num_local_experts = experts;
  config.num_experts_per_tok = per_token;
  return config;
}

// The layout of a step's documents: rows (packed or one a document) over micro-batches of each rank.
struct Layout {
  bool packing;
  int64_t rows_per_micro_batch, micro_batches;
};

struct ShortTraining {
  MixtralConfig config = testing_config();
  Layout layout = {false, 9, 1};
  RouterLosses router = {RouterLossType::kHuggingface, 0};
  int64_t documents = 9, longest = 60;                                    // of a step
  enum class Weights { kNone, kTwos, kUneven } weights = Weights::kNone;  // of targets
  double bias_rate = 0;                                                   // where the configuration has an expert bias
  bool first_experts = false;  // order_experts: every token goes to the first experts
  bool little_memory = false;  // as much as the next line says
  double memory = 1.2;         // a multiple of what the worst routing needs where nothing of the experts is kept

  static constexpr int64_t kSteps = 5;
};

// The results of a training, each number once, whichever rank it came from.
struct TrainingRecord {
  using Tensors = std::map<std::string, std::vector<double>>;
  std::vector<double> losses, norms;
  std::vector<double> exchanged;  // bytes of tokens and their gradients, of all ranks; empty for one alone
  Tensors gradients, first_moments, second_moments, start, weights;  // gradients: of the first step

  // Adds elements [begin, begin + count) of a parameter, flat in `values` from its first one on.
  static void add(Tensors& to, const ParamSpec& spec, ParamLayout::Piece piece, const Tensor& values) {
    for (const HfBlock& slice : spec.blocks) {
      auto& all = to[slice.name];
      all.resize(slice.shape().elements(), std::numeric_limits<double>::quiet_NaN());
      for (int64_t i = std::max(slice.offset, piece.begin);
           i < std::min(slice.offset + slice.elements(), piece.begin + piece.count); ++i)
        all[slice.box.place(i - slice.offset)] = element(values, i - piece.begin);
    }
  }
};

// Every token's routers prefer an expert to the next by far more than rounding and kSteps updates make, and alike: the
// residual stream has one large element, which is all that routers look at. (Without a spread, which of two experts a
// token takes would be noise.)
inline void order_experts(Instance& model) {
  // After the norm about 4.4: logits 0.44 apart. (The larger, the more of the gradients of attention's norm cancels.)
  constexpr double kElement = 2, kGap = -0.1;
  State& state = model.state();
  for (int p = 0; p < state.size(); ++p) {
    const bool router = state.spec(p).name.ends_with("gate.weight"),
               embedding = state.spec(p).name.ends_with("embed_tokens.weight");
    if (!router && !embedding) continue;
    if (router) zero(model.ctx(), state.weight(p));
    const HostCopy copy_of(model.ctx(), state.weight(p));
    const Tensor& weight = copy_of.tensor();
    for (int64_t row = 0; row < weight.rows(); ++row) {
      const double value = router ? kGap * static_cast<double>(row) : kElement;
      if (weight.dtype == DType::kF64)
        weight.row(row).as<double>()[0] = value;
      else
        weight.row(row).as<float>()[0] = static_cast<float>(value);
    }
    copy(model.ctx(), weight, state.weight(p));
    wait(model.ctx());
  }
}

inline MemoryDocuments documents_of_step(const ShortTraining& run, int64_t step) {
  const uint64_t key = random_key(11, "documents of a step");
  MemoryDocuments documents;
  uint64_t index = static_cast<uint64_t>(step) << 32;
  for (int64_t d = 0; d < run.documents; ++d) {
    const auto length = static_cast<int64_t>(2 + random_below(key, ++index, run.longest - 1));
    std::vector<int32_t> ids, labels;
    std::vector<float> weights;
    for (int64_t i = 0; i < length; ++i) {
      ids.push_back(static_cast<int32_t>(random_below(key, ++index, run.config.vocab_size)));
      labels.push_back(i + 1 == length || random_below(key, ++index, 2) ? ids.back() : kIgnoreTarget);
    }
    if (run.weights != ShortTraining::Weights::kNone) weights.resize(ids.size(), 2);
    if (run.weights == ShortTraining::Weights::kUneven)
      for (float& weight : weights) weight = static_cast<float>(0.1 + random_uniform(key, ++index));
    documents.append(ids, labels, weights);
  }
  return documents;
}

// Trains; every rank of the options calls this. The record has what this rank holds.
inline TrainingRecord run_training(const ShortTraining& run, InstanceOptions options) {
  const OptimizerSettings settings = {.learning_rate = 1e-3, .weight_decay = 0.1};
  const BatchLimits limits = {.tokens = align_rows(run.layout.rows_per_micro_batch * run.longest),
                              .longest_document = run.longest,
                              .documents = run.layout.rows_per_micro_batch};
  const MemoryPlan worst = plan_memory(run.config, options, limits, kWorstRouting);
  if (run.little_memory)
    options.stack_bytes = static_cast<size_t>(run.memory * static_cast<double>(worst.least_activations));
  TestModel model(run.config, options);
  if (run.little_memory)
    model.model().set_still_needed(plan_reserve(run.config, options, limits, options.stack_bytes).still_needed);
  warm_up(model, limits);
  int64_t recomputed = 0;
  State& state = model.state();
  TrainingRecord record;
  const auto whole = [&](int p) {
    return ParamLayout::Piece{0, state.spec(p).shape.elements()};
  };
  // Adds elements of a flat tensor, on any device.
  const auto add = [&](TrainingRecord::Tensors& to, int p, ParamLayout::Piece piece, const Tensor& values) {
    TrainingRecord::add(to, state.spec(p), piece, HostCopy(model.ctx(), values).tensor());
  };
  const auto flat = [](const Tensor& t) {
    return t.view({t.elements()});
  };
  if (run.first_experts) order_experts(model);
  const auto for_each_trained = [&](const auto& use) {
    for (int p = 0; p < state.size(); ++p)
      if (state.spec(p).trainable) use(p);
  };
  for_each_trained([&](int p) { add(record.start, p, whole(p), flat(state.weight(p))); });
  StepRunner runner(model, settings, 0);
  for (int64_t step = 1; step <= ShortTraining::kSteps; ++step) {
    model.ranks().set_step(step);
    const MemoryDocuments documents = documents_of_step(run, step);
    Loader loader(documents, {.max_seq_length = run.longest, .packing = run.layout.packing, .epochs = 1},
                  run.layout.rows_per_micro_batch, run.layout.micro_batches, model.host_memory(), model.share());
    const Step& rows = loader.load(0);
    EXPECT_EQ(rows.documents, run.documents);
    StepRunner::Loss loss = StepRunner::loss_of(rows, run.router);
    loss.step = step;
    runner.forward_backward(rows.micro_batches, loss);
    runner.update({.step = step, .lr_share = 1, .max_norm = 1, .bias_rate = run.bias_rate});
    const StepRunner::Result result = runner.read();
    record.losses.push_back(result.token_loss / rows.target_weight + result.router_loss);
    record.norms.push_back(result.grad_norm);
    recomputed += result.recomputed;
    if (result.parallel) {
      record.exchanged.push_back(0);
      for (const RankRecord& rank : result.parallel->ranks)
        record.exchanged.back() += static_cast<double>(rank.exchange_bytes);
    }
    if (step > 1) continue;
    for_each_trained([&](int p) {
      const ParamLayout::Piece counted = state.layout().counted(p);
      add(record.gradients, p, counted,
          flat(state.gradients().finished(model.ctx(), p)).slice(counted.begin, counted.count));
    });
  }
  if (run.little_memory && model.ranks().grid.rank == 0) {
    EXPECT_GT(recomputed, 0);
  }
  state.weight_sync().await_all(model.ctx());
  for_each_trained([&](int p) {
    add(record.first_moments, p, state.layout().owned(p), flat(state.first_moment(p)));
    add(record.second_moments, p, state.layout().owned(p), flat(state.second_moment(p)));
    add(record.weights, p, whole(p), flat(state.weight(p)));
  });
  return record;
}

struct Bounds {
  double first_loss, loss, gradients, moments, weights;
};
constexpr Bounds kFp32Bounds = {1e-6, 1e-5, 5e-6, 1e-4, 1e-3}, kFp64Bounds = {1e-10, 1e-10, 1e-10, 1e-10, 1e-10};

// The distances between two runs, each by its own measure: the worst step or tensor.
struct Distance {
  double loss = 0, norm = 0, gradients = 0, moments = 0, weights = 0;
};

inline double distance(const std::vector<double>& a, const std::vector<double>& b, double& reference) {
  double difference = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += std::pow(a[i] - b[i], 2);
    reference += b[i] * b[i];
  }
  return difference;
}

constexpr double kZero = 1e-14;  // of the square of the global norm: what is exactly zero stays below

// Returns the worst relative 2-norm of any tensor; one that is exactly zero must be under 1e-6 of the global norm.
inline double expect_near(const char* what, const TrainingRecord::Tensors& actual,
                          const TrainingRecord::Tensors& reference, double bound) {
  double global = 0, worst = 0;
  for (const auto& [name, values] : reference) distance(values, values, global);
  for (const auto& [name, values] : reference) {
    const auto found = actual.find(name);
    if (found == actual.end() || found->second.size() != values.size()) {
      ADD_FAILURE() << what << " of " << name << " is not there";
      continue;
    }
    double norm = 0;
    const double difference = distance(found->second, values, norm);
    if (norm < kZero * global) {
      EXPECT_LT(std::sqrt(difference), 1e-6 * std::sqrt(global)) << what << " of " << name << ", exactly zero";
      continue;
    }
    EXPECT_LT(std::sqrt(difference / norm), bound) << what << " of " << name;
    worst = std::max(worst, std::sqrt(difference / norm));
  }
  EXPECT_EQ(actual.size(), reference.size());
  return worst;
}

inline Distance expect_same(const TrainingRecord& actual, const TrainingRecord& reference, const Bounds& bounds) {
  Distance worst;
  EXPECT_EQ(actual.losses.size(), reference.losses.size());
  for (size_t step = 0; step < std::min(actual.losses.size(), reference.losses.size()); ++step) {
    const double bound = step == 0 ? bounds.first_loss : bounds.loss;
    const double loss = std::abs(actual.losses[step] / reference.losses[step] - 1),
                 norm = std::abs(actual.norms[step] / reference.norms[step] - 1);
    EXPECT_LT(loss, bound) << "loss, step " << step;
    EXPECT_LT(norm, bound) << "norm, step " << step;
    worst.loss = std::max(worst.loss, loss);
    worst.norm = std::max(worst.norm, norm);
  }
  worst.gradients = expect_near("gradient", actual.gradients, reference.gradients, bounds.gradients);
  worst.moments =
      std::max(expect_near("first moment", actual.first_moments, reference.first_moments, bounds.moments),
               expect_near("second moment", actual.second_moments, reference.second_moments, bounds.moments));
  double difference = 0, update = 0, global = 0;
  for (const auto& [name, values] : reference.gradients) distance(values, values, global);
  for (const auto& [name, values] : reference.weights) {
    double gradient = 0, unused = 0;
    distance(reference.gradients.at(name), reference.gradients.at(name), gradient);
    if (gradient < kZero * global) continue;  // Adam makes a step of full size of the noise of a zero
    EXPECT_EQ(actual.start.at(name), reference.start.at(name)) << name;
    difference += distance(actual.weights.at(name), values, unused);
    update += distance(reference.start.at(name), values, unused);
  }
  worst.weights = std::sqrt(difference / update);
  EXPECT_LT(worst.weights, bounds.weights) << "weights";
  return worst;
}

}  // namespace mixtune
