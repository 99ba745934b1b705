// What the tests on a GPU train: a model of middle size, with the same weights on every device, on random documents.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/random.h"
#include "data/label.h"
#include "data/loader.h"
#include "data/memory_documents.h"
#include "train/step_runner.h"
#include "train/warm_up.h"

namespace mixtune {

inline constexpr Device kGpu{DeviceType::kCuda, 0};

inline MixtralConfig middle_size_config() {
  return {.vocab_size = 1000,
          .hidden_size = 256,
          .intermediate_size = 512,
          .num_hidden_layers = 4,
          .num_attention_heads = 4,
          .num_key_value_heads = 2,
          .head_dim = 64,
          .num_local_experts = 8,
          .num_experts_per_tok = 2,
          .max_position_embeddings = 2048,
          .rope_theta = 1e4,
          .rms_norm_eps = 1e-5,
          .initializer_range = 0.05,
          .router_aux_loss_coef = 0.02};
}

inline InstanceOptions fp32_on(Device device) {
  return {.device = device, .purpose = State::Purpose::kTraining, .stack_bytes = size_t{2} << 30};
}

inline InstanceOptions bf16_on_gpu() {
  InstanceOptions options = fp32_on(kGpu);
  options.types = {.weights = DType::kBF16, .masters = true};
  return options;
}

// Weights that every dtype holds exactly. Norms are uneven, so that their gradients are tested.
inline void fill_weights(Instance& instance) {
  const MixtralConfig& config = instance.model().config();
  initialise_weights(instance.ctx(), config,
                     {.seed = 1, .norm_deviation = config.initializer_range, .rounded_to = DType::kBF16},
                     instance.state());
}

// Documents of 2 to `longest` random tokens, most of them short; about a third of the labels are not trained. Weighted:
// the others have weights from 0.1 to 1.1.
inline MemoryDocuments random_documents(int64_t count, int64_t longest, int64_t vocab, uint64_t seed,
                                        bool weighted = false) {
  const uint64_t key = random_key(seed, "random documents");
  MemoryDocuments documents;
  uint64_t index = 0;
  std::vector<int32_t> ids, labels;
  for (int64_t d = 0; d < count; ++d) {
    const double share = d % 16 == 0 ? 1 : std::pow(random_uniform(key, ++index), 3);
    const int64_t length = 2 + static_cast<int64_t>(share * static_cast<double>(longest - 2));
    ids.clear(), labels.clear();
    for (int64_t i = 0; i < length; ++i) {
      ids.push_back(static_cast<int32_t>(random_below(key, ++index, vocab)));
      labels.push_back(i + 1 == length || random_below(key, ++index, 3) > 0 ? ids.back() : kIgnoreTarget);
    }
    std::vector<float> weights(weighted ? ids.size() : 0);
    for (float& weight : weights) weight = static_cast<float>(0.1 + random_uniform(key, ++index));
    documents.append(ids, labels, weights);
  }
  return documents;
}

inline BatchLimits limits_of(const Loader& loader, int64_t longest_document) {
  return {.tokens = loader.max_batch_tokens(),
          .longest_document = std::min(loader.max_batch_tokens(), longest_document),
          .documents = loader.max_batch_documents(),
          .micro_batches = loader.max_micro_batches(),
          .weighted = loader.weighted()};
}

// A training as Trainer does it, without its files.
class Training {
 public:
  Training(const MixtralConfig& config, const InstanceOptions& options)
      : instance_(config, options), runner_(instance_, kOptimizer, 7) {
    fill_weights(instance_);
  }

  struct Numbers {
    double loss = 0, grad_norm = 0;
    int64_t recomputed = 0;  // layers that did not keep all they were to (Saved::recomputed)
    bool operator==(const Numbers&) const = default;
  };
  // Gradients of the step's loss; its norm is not computed.
  Numbers gradients(const Step& rows) {
    runner_.forward_backward(rows.micro_batches, StepRunner::loss_of(rows, router()));
    return numbers(rows);
  }
  // One more step of the optimizer.
  Numbers step(const Step& rows) {
    runner_.forward_backward(rows.micro_batches, StepRunner::loss_of(rows, router()));
    runner_.update({.step = ++steps_, .lr_share = 1, .max_norm = 1});
    return numbers(rows);
  }

  int64_t graphs_made() const { return runner_.graphs_made(); }
  Instance& instance() { return instance_; }
  State& state() { return instance_.state(); }
  Ctx& ctx() { return instance_.ctx(); }

 private:
  static inline const OptimizerSettings kOptimizer = {.learning_rate = 1e-3, .weight_decay = 0.1};

  RouterLosses router() const {
    return {RouterLossType::kHuggingface, instance_.model().config().router_aux_loss_coef};
  }

  Numbers numbers(const Step& rows) {
    const StepRunner::Result result = runner_.read();
    return {.loss = result.token_loss / rows.target_weight + result.router_loss,
            .grad_norm = result.grad_norm,
            .recomputed = result.recomputed};
  }

  Instance instance_;
  StepRunner runner_;
  int64_t steps_ = 0;
};

}  // namespace mixtune
