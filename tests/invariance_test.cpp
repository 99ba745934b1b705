// The same documents in a step give the same loss, gradients and update, however they are packed and split
// (docs/design.md, section 4); and the same run gives the same bits.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <cstring>

#include "data/loader.h"
#include "sameness.h"
#include "state/adamw.h"
#include "train/testing.h"

namespace mixtune {
namespace {

constexpr int64_t kSteps = 5, kDocuments = 9, kMaxLength = 60;
const OptimizerSettings kOptimizer = {.learning_rate = 1e-3, .weight_decay = 0.1};

// How the documents of a step are laid out: rows (packed or one a document) over micro-batches.
struct Layout {
  bool packing;
  int64_t rows_per_micro_batch, micro_batches;
};

Documents documents_of_step(int64_t step, int64_t vocab) {
  const uint64_t key = random_key(11, "documents of a step");
  Documents documents;
  uint64_t index = static_cast<uint64_t>(step) << 32;
  for (int64_t d = 0; d < kDocuments; ++d) {
    const auto length = static_cast<int64_t>(2 + random_below(key, ++index, kMaxLength - 1));
    std::vector<int32_t> ids, labels;
    for (int64_t i = 0; i < length; ++i) {
      ids.push_back(static_cast<int32_t>(random_below(key, ++index, vocab)));
      labels.push_back(i + 1 == length || random_below(key, ++index, 2) ? ids.back() : kIgnoreTarget);
    }
    documents.append(ids, labels);
  }
  return documents;
}

struct Training {
  TestModel model;
  std::vector<double> losses, norms;
  std::vector<std::vector<double>> first_gradients;

  Training(const MixtralConfig& config, DType dtype, const Layout& layout, double router_coefficient)
      : model(config, dtype) {
    Saved saved = model.model().make_saved();
    AdamW optimizer(model.state(), kOptimizer, 0);
    for (int64_t step = 1; step <= kSteps; ++step) {
      const Documents documents = documents_of_step(step, config.vocab_size);
      Loader loader(documents, {.max_seq_length = kMaxLength, .packing = layout.packing, .epochs = 1},
                    layout.rows_per_micro_batch, layout.micro_batches);
      EXPECT_EQ(loader.steps(), 1);
      const Step& rows = loader.load(0);
      EXPECT_EQ(rows.documents, kDocuments);
      model.state().begin_step();
      const double targets = static_cast<double>(rows.target_tokens);
      const double micro_batches = static_cast<double>(rows.micro_batches.size());
      double loss = 0;
      for (const Batch& batch : rows.micro_batches) {
        const MicroBatchLoss part =
            run_micro_batch(model.ctx(), model.model(), batch, saved,
                            {.token_scale = 1 / targets, .router_scale = router_coefficient / micro_batches});
        loss += part.token_sum / targets + router_coefficient / micro_batches * part.router;
      }
      losses.push_back(loss);
      norms.push_back(gradient_norm(model.ctx(), optimizer));
      if (step == 1) keep_gradients();
      double scale = std::min(1.0, 1 / (norms.back() + 1e-6));
      optimizer.step(model.ctx(),
                     {.step = step, .learning_rate = kOptimizer.learning_rate, .grad_scale = host_tensor(&scale, {1})});
    }
  }

  void keep_gradients() {
    for (int p = 0; p < model.state().size(); ++p) {
      const Tensor gradient = model.state().finished_gradient(model.ctx(), p);
      auto& kept = first_gradients.emplace_back(gradient.elements());
      for (int64_t i = 0; i < gradient.elements(); ++i) kept[i] = element(gradient, i);
    }
  }
};

struct Bounds {
  double first_loss, loss, gradients, moments, weights;
};
constexpr Bounds kFp32 = {1e-6, 1e-5, 5e-6, 1e-4, 1e-3}, kFp64 = {1e-10, 1e-10, 1e-10, 1e-10, 1e-10};

void expect_same(Training& actual, Training& reference, const Bounds& bounds) {
  for (int64_t step = 0; step < kSteps; ++step) {
    const double bound = step == 0 ? bounds.first_loss : bounds.loss;
    EXPECT_NEAR(actual.losses[step], reference.losses[step], bound * reference.losses[step]) << "loss, step " << step;
    EXPECT_NEAR(actual.norms[step], reference.norms[step], bound * reference.norms[step]) << "norm, step " << step;
  }
  State &state = actual.model.state(), &other = reference.model.state();
  const MixtralConfig config = actual.model.model().config();
  TestModel start(config, state.dtype());
  NormError weights;
  for (int p = 0; p < state.size(); ++p) {
    SCOPED_TRACE(state.spec(p).name);
    const auto n = static_cast<int64_t>(actual.first_gradients[p].size());
    NormError gradient, first, second;
    gradient.add(host_tensor(actual.first_gradients[p].data(), {n}),
                 host_tensor(reference.first_gradients[p].data(), {n}));
    first.add(state.first_moment(p), other.first_moment(p));
    second.add(state.second_moment(p), other.second_moment(p));
    EXPECT_LT(gradient.relative(), bounds.gradients);
    EXPECT_LT(first.relative(), bounds.moments);
    EXPECT_LT(second.relative(), bounds.moments);
    for (int64_t i = 0; i < n; ++i) {
      weights.difference += std::pow(element(state.weight(p), i) - element(other.weight(p), i), 2);
      weights.reference += std::pow(element(other.weight(p), i) - element(start.state().weight(p), i), 2);
    }
  }
  EXPECT_LT(weights.relative(), bounds.weights);
}

MixtralConfig config_with_window(int64_t window) {
  MixtralConfig config = testing_config();
  config.sliding_window = window;
  return config;
}

constexpr Layout kOneRowEach = {false, kDocuments, 1};

TEST(Invariance, PackingAndAccumulationWithoutRouterLoss) {
  for (const int64_t window : {0, 6})
    for (const auto& [dtype, bounds] : {std::pair{DType::kF32, kFp32}, std::pair{DType::kF64, kFp64}}) {
      Training reference(config_with_window(window), dtype, kOneRowEach, 0);
      for (const Layout& layout : {Layout{false, 1, 9}, Layout{false, 2, 5}, Layout{false, 4, 3}, Layout{true, 9, 1},
                                   Layout{true, 1, 9}, Layout{true, 2, 5}}) {
        SCOPED_TRACE(fmt::format("window {}, {}, packing {}, {} rows x {}", window, dtype_name(dtype), layout.packing,
                                 layout.rows_per_micro_batch, layout.micro_batches));
        Training training(config_with_window(window), dtype, layout, 0);
        expect_same(training, reference, bounds);
      }
    }
}

// The huggingface loss is of one accumulation step: packing does not change it, splitting does.
TEST(Invariance, PackingWithRouterLoss) {
  for (const auto& [dtype, bounds] : {std::pair{DType::kF32, kFp32}, std::pair{DType::kF64, kFp64}}) {
    Training reference(testing_config(), dtype, kOneRowEach, 0.02), packed(testing_config(), dtype, {true, 9, 1}, 0.02);
    expect_same(packed, reference, bounds);
  }
}

TEST(Determinism, SameBitsTwiceAndOnAnyNumberOfThreads) {
  const Layout layout = {true, 2, 5};
  MixtralConfig config = testing_config();
  config.vocab_size = 3000;  // tables of several blocks of the gradient norm, logits of several tiles
  Training reference(config, DType::kF32, layout, 0.02);
  const int threads = omp_get_max_threads();
  for (const int n : {threads, 1, 3}) {
    omp_set_num_threads(n);
    Training again(config, DType::kF32, layout, 0.02);
    EXPECT_EQ(again.losses, reference.losses) << n << " threads";
    EXPECT_EQ(again.norms, reference.norms) << n << " threads";
    for (int p = 0; p < reference.model.state().size(); ++p) {
      const Tensor a = again.model.state().weight(p), b = reference.model.state().weight(p);
      EXPECT_EQ(std::memcmp(a.data, b.data, a.bytes()), 0) << reference.model.state().spec(p).name;
    }
  }
  omp_set_num_threads(threads);
}

}  // namespace
}  // namespace mixtune
