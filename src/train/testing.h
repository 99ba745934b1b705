// What tests of the model share: a small model with random weights, and documents of given lengths.
#pragma once

#include <numeric>
#include <vector>

#include "base/random.h"
#include "data/batch_builder.h"
#include "data/label.h"
#include "kernels/cast.h"
#include "model/instance.h"
#include "train/micro_batch.h"

namespace mixtune {

inline MixtralConfig testing_config() {
  return {.vocab_size = 37,
          .hidden_size = 24,
          .intermediate_size = 20,
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
    for (int p = 0; p < state().size(); ++p) {
      for (const HfBlock& slice : state().spec(p).blocks) {
        const Tensor all = state().weight(p);
        const Tensor weight = all.view({all.elements()}).slice(slice.offset, slice.elements());
        const bool norm = slice.shape().rank() == 1;
        const uint64_t key = random_key(1, slice.name);
        std::vector<float> values(weight.elements());
        for (int64_t i = 0; i < weight.elements(); ++i)
          values[i] = static_cast<float>(norm + config.initializer_range * random_normal(key, i));
        write(values, weight);
      }
      const Tensor weight = state().weight(p), master = state().master(p);
      const ParamLayout::Piece owned = state().layout().owned(p);
      if (master && owned.count > 0)
        cast(ctx(), weight.view({weight.elements()}).slice(owned.begin, owned.count), master.view({owned.count}));
    }
    wait(ctx());
  }

  const double* gradient(int param) { return state().gradients().finished(ctx(), param).as<double>(); }

 private:
  void write(const std::vector<float>& values, const Tensor& to) {
    std::vector<double> wide(values.begin(), values.end());
    std::vector<BF16> narrow;
    for (const float value : values) narrow.push_back(to_bf16(value));
    const Tensor from = to.dtype == DType::kF64    ? host_tensor(wide.data(), to.shape)
                        : to.dtype == DType::kBF16 ? host_tensor(narrow.data(), to.shape)
                                                   : host_tensor(values.data(), to.shape);
    copy(ctx(), from, to);
    wait(ctx());
  }

  static InstanceOptions for_training(InstanceOptions options) {
    options.purpose = State::Purpose::kTraining;
    if (options.stack_bytes == 0) options.stack_bytes = size_t{1} << 30;
    return options;
  }
};

// forward_backward on the CPU, and its losses.
struct MicroBatchLoss {
  double token_sum = 0, router = 0;
};
inline MicroBatchLoss run_micro_batch(Ctx& ctx, const Mixtral& model, const Batch& batch, Saved& saved,
                                      const LossScales& scales) {
  double losses[2] = {};
  forward_backward(ctx, model, batch, saved, scales, host_tensor(losses, {2}));
  return {losses[0], losses[1]};
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
