// A layer's gradients in 8 bits beside fp32's: from the same input, experts and gradient of the output.
#include <gtest/gtest.h>

#include <cmath>

#include "train/testing.h"

namespace mixtune {
namespace {

MixtralConfig one_layer() {
  MixtralConfig config = testing_config();
  config.hidden_size = 160;
  config.intermediate_size = 144;
  config.head_dim = 40;
  config.num_hidden_layers = 1;
  config.initializer_range = 0.02;  // Mixtral's
  return config;
}

struct Pass {
  explicit Pass(std::optional<EightBitScaling> scaling)
      : model(one_layer(), InstanceOptions{.types = StateTypes::all(DType::kF32), .recipe = {.eight_bit = scaling}}),
        saved(model.model().make_saved()) {
    // A residual stream as large as a trained model's, to which a block adds little.
    const Tensor embedding = model.state().weight(0);
    for (int64_t i = 0; i < embedding.elements(); ++i) embedding.as<float>()[i] *= 50;
  }

  // Leaves the layer's gradients in the state. `experts` may be empty: the router chooses.
  void run(const Batch& batch, const Tensor& experts) {
    Ctx& ctx = model.ctx();
    if (experts) saved.forced = {experts};
    model.state().gradients().begin_step();
    const ForwardPass forward = forward_pass(ctx, model.model(), batch, saved, true);
    const Tensor dh = ctx.stack.push("gradient of the output", forward.h.shape, DType::kF32);
    zero(ctx, dh);
    const int64_t live = batch.live_tokens * dh.shape[1];
    for (int64_t i = 0; i < live; ++i)
      dh.as<float>()[i] = static_cast<float>(random_normal(random_key(1, "gradient of the output"), i));
    model.model().layers_backward(ctx, forward.batch, model.model().all_layers(), dh, {}, saved);
  }

  TestModel model;
  Saved saved;
};

TEST(EightBitGradient, IsThatOfFp32ButForItsRounding) {
  const TestData data(one_layer().vocab_size, {150, 90, 33});
  Pass exact(std::nullopt);
  exact.run(data.batch(), {});
  for (const EightBitScaling scaling : {EightBitScaling::kBlock, EightBitScaling::kMx}) {
    Pass rounded(scaling);
    rounded.run(data.batch(), exact.saved.layers[0].routing.experts);
    for (const int p : {1, 2, 3, 4, 6, 7}) {
      SCOPED_TRACE(exact.model.state().spec(p).name);
      const Tensor want = exact.model.state().gradients().finished(exact.model.ctx(), p),
                   got = rounded.model.state().gradients().finished(rounded.model.ctx(), p);
      double error = 0, squares = 0, dot = 0, norm = 0;
      for (int64_t i = 0; i < want.elements(); ++i) {
        const double a = got.as<float>()[i], b = want.as<float>()[i];
        error += (a - b) * (a - b);
        squares += b * b;
        dot += a * b;
        norm += a * a;
      }
      EXPECT_LT(std::sqrt(error / squares), 0.08);
      EXPECT_GT(std::sqrt(error / squares), 0.03);  // less would say that something was not quantised
      EXPECT_GT(dot / std::sqrt(squares * norm), 0.995);
    }
  }
}

}  // namespace
}  // namespace mixtune
