// What tests of the model share: a small model with random weights, and documents of given lengths.
#pragma once

#include <numeric>
#include <vector>

#include "base/random.h"
#include "data/batch_builder.h"
#include "data/label.h"
#include "model/instance.h"
#include "train/micro_batch.h"

namespace mixtune {

inline MixtralConfig testing_config() {
  return {.vocab_size = 37,
          .hidden_size = 24,
          .intermediate_size = 32,
          .num_hidden_layers = 2,
          .num_attention_heads = 4,
          .num_key_value_heads = 2,
          .head_dim = 6,
          .num_local_experts = 4,
          .num_experts_per_tok = 2,
          .max_position_embeddings = 128,
          .rope_theta = 1e4,
          .rms_norm_eps = 1e-5,
          .initializer_range = 0.2};
}

// Weights are the same fp32 values in fp32 and fp64, and those rounded in bf16, whose masters are no finer. Norms are
// made uneven, so that their gradients are tested.
class TestModel : public Instance {
 public:
  TestModel(const MixtralConfig& config, DType dtype)
      : TestModel(config, InstanceOptions{.types = StateTypes::all(dtype)}) {}
  // options: device, types, recompute, ranks, zero_stage.
  TestModel(const MixtralConfig& config, InstanceOptions options) : Instance(config, for_training(options)) {
    initialise_weights(ctx(), config,
                       {.seed = 1, .norm_deviation = config.initializer_range, .rounded_to = DType::kF32}, state());
  }

  const double* gradient(int param) { return state().gradients().finished(ctx(), param).as<double>(); }

 private:
  static InstanceOptions for_training(InstanceOptions options) {
    options.purpose = State::Purpose::kTraining;
    if (options.stack_bytes == 0) options.stack_bytes = size_t{1} << 30;
    return options;
  }
};

// forward_backward on the CPU, and its losses.
struct MicroBatchLoss {
  double token_sum = 0, router = 0;  // router: each loss times its scale
};
inline MicroBatchLoss run_micro_batch(Ctx& ctx, const Mixtral& model, const Batch& batch, Saved& saved,
                                      const LossScales& scales) {
  double losses[kLosses] = {};
  forward_backward(ctx, model, batch, saved, scales, host_tensor(losses, {kLosses}));
  MicroBatchLoss loss = {.token_sum = losses[0]};
  for (int64_t i = 0; i < kRouterLossTypes; ++i)
    loss.router += scales.router[static_cast<RouterLossType>(i)].value_or(0) * losses[1 + i];
  return loss;
}

// Random documents of the given lengths; about a third of the tokens have no target, the others a random one. A
// document of one token, which has none, stands in the batch for its position and routing alone.
class TestData {
 public:
  TestData(int64_t vocab, const std::vector<int64_t>& lengths)
      : builder_({.tokens = std::accumulate(lengths.begin(), lengths.end(), int64_t{0}),
                  .documents = static_cast<int64_t>(lengths.size())}) {
    const uint64_t key = random_key(3, "documents");
    uint64_t index = 0;
    builder_.begin();
    for (const int64_t length : lengths) {
      std::vector<int32_t> ids, labels = {kIgnoreTarget};
      for (int64_t i = 0; i < length; ++i, ++index) {
        ids.push_back(static_cast<int32_t>(random_below(key, 3 * index, vocab)));
        const bool trained = random_below(key, 3 * index + 1, 3) > 0;
        labels.push_back(trained ? static_cast<int32_t>(random_below(key, 3 * index + 2, vocab)) : kIgnoreTarget);
      }
      labels.pop_back();
      builder_.add_document(ids, labels);
    }
    batch_ = builder_.finish();
  }

  const Batch& batch() const { return batch_; }

 private:
  BatchBuilder builder_;
  Batch batch_;
};

}  // namespace mixtune
