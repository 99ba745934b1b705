// What tests of the model share: a small model with random weights, and documents of given lengths.
#pragma once

#include <vector>

#include "base/random.h"
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

// Random documents of the given lengths; about a third of the tokens have no target. A document of one token, which has
// none, stands in the batch for its position and routing alone.
class TestData {
 public:
  TestData(int64_t vocab, const std::vector<int64_t>& lengths) {
    const uint64_t key = random_key(3, "documents");
    uint64_t index = 0;
    for (const int64_t length : lengths) {
      offsets_.push_back(static_cast<int32_t>(ids_.size()));
      for (int64_t i = 0; i < length; ++i, ++index) {
        if (i + 1 < length && random_below(key, 3 * index + 1, 3) > 0) {
          target_rows_.push_back(static_cast<int32_t>(ids_.size()));
          targets_.push_back(static_cast<int32_t>(random_below(key, 3 * index + 2, vocab)));
        }
        ids_.push_back(static_cast<int32_t>(random_below(key, 3 * index, vocab)));
        positions_.push_back(static_cast<int32_t>(i));
      }
    }
    live_tokens_ = static_cast<int64_t>(ids_.size());
    offsets_.push_back(static_cast<int32_t>(live_tokens_));
    const int64_t rows = (live_tokens_ + kRowAlignment - 1) / kRowAlignment * kRowAlignment;
    ids_.resize(rows, 0);
    positions_.resize(rows, 0);
    std::vector<uint64_t> sorted(live_tokens_);
    unique_.resize(live_tokens_), begins_.resize(live_tokens_ + 1), rows_.resize(live_tokens_);
    index_ = index_ids(view(ids_).slice(0, live_tokens_), {view(unique_), view(begins_), view(rows_)}, sorted.data());
  }

  Batch batch() const {
    return {.ids = view(ids_),
            .positions = view(positions_),
            .target_rows = view(target_rows_),
            .targets = view(targets_),
            .doc_offsets = view(offsets_),
            .rows_by_id = index_,
            .host_doc_offsets = view(offsets_),
            .live_tokens = live_tokens_,
            .step_tokens = live_tokens_};
  }

 private:
  static Tensor view(const std::vector<int32_t>& values) {
    return host_tensor(values.data(), {static_cast<int64_t>(values.size())});
  }

  std::vector<int32_t> ids_, positions_, target_rows_, targets_, offsets_, unique_, begins_, rows_;
  IdIndex index_;
  int64_t live_tokens_ = 0;
};

}  // namespace mixtune
