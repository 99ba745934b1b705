// bf16 on a GPU against fp32 on the CPU, from the same weights (docs/design.md, section 4): with the reference's
// routing replayed, and free. As one of the ranks of a job (two_gpus_test), the GPU's side is spread over all of them,
// and each has its own documents.
#include <fmt/format.h>

#include <limits>
#include <optional>

#include "base/test_paths.h"
#include "checkpoint/load.h"
#include "config/load.h"
#include "gpu/noise.h"
#include "gpu/rank_of_job.h"
#include "gpu/replay.h"
#include "gpu/training.h"
#include "tensor/gpu_test.h"
#include "train/run_data.h"
#include "train/testing.h"

namespace mixtune {
namespace {

// Normal values beyond this many standard deviations are one in 5e8; the largest case has 2e6 logits.
constexpr double kSigmas = 6;
// Norms vary less; but the gradient of an expert may come from a few tokens.
constexpr double kNormSigmas = 3;
constexpr double kLoss = 1e-3;

// Errors, in units of their bounds.
struct Errors {
  double worst = 0, sum = 0;
  int64_t count = 0;

  void add(double error, double bound) {
    const double ratio = std::isfinite(error) ? std::abs(error) / bound : std::numeric_limits<double>::infinity();
    worst = std::max(worst, ratio);
    sum += ratio;
    ++count;
  }
  double mean() const { return count > 0 ? sum / static_cast<double>(count) : 0; }
};

constexpr const char* kMiddleSize = "middle_size";

struct Where {
  std::string model;   // a fixture, or kMiddleSize
  bool deterministic;  // does without cuDNN
};

// The model and its batch, in fp32 on the CPU and in bf16 on a GPU.
class Bf16Parity : public testing::TestWithParam<Where> {
 protected:
  void SetUp() override {
    need_gpus(1, gpu_count());
    if (IsSkipped() || HasFatalFailure()) return;
    const std::string& name = GetParam().model;
    const std::string folder = source_path("tests/fixtures/hf/" + name);
    config_ = name == kMiddleSize ? middle_size_config() : load_mixtral_config(folder);
    InstanceOptions options = bf16_on_gpu();
    options.gpu.deterministic = GetParam().deterministic;
    if (const Ranks& ranks = rank_of_job(); ranks.grid.world > 1) {
      options.ranks = &ranks;
      options.device = ranks.device.value();
      options.zero_stage = 0;            // every rank has the whole sums of gradients
      config_.router_aux_loss_coef = 0;  // the loss of all ranks' batches together is no sum of theirs
    }
    cpu_.emplace(config_, fp32_on({}));
    gpu_.emplace(config_, options);
    if (name == kMiddleSize)
      make_middle_size();
    else
      load_fixture(folder);
    const int rank = options.ranks->grid.rank;
    batch_ = batches_[rank];
    for (const Batch& batch : batches_) {
      Forward forward = run_forward(*cpu_, batch);
      cpu_replays_.push_back(std::make_unique<Replay>(*cpu_, forward));
      if (cpu_replays_.size() == rank + 1u) reference_.emplace(std::move(forward));
    }
    gpu_replay_.emplace(*gpu_, *reference_);
  }

  void make_middle_size() {
    fill_weights(*cpu_);
    fill_weights(*gpu_);
    const int ranks = rank_of_job().grid.world;
    std::vector<int64_t> lengths = {1, 2, 130, 3, 511, 64, 7, 700, 1, 33, 128, 257, 90, 2, 41};
    for (int rank = 0; rank < ranks; ++rank) {
      batches_.push_back(data_.emplace_back(std::make_unique<TestData>(config_.vocab_size, lengths))->batch());
      std::ranges::rotate(lengths, lengths.begin() + 4);
      lengths.back() += 20;
    }
  }

  void load_fixture(const std::string& folder) {
    for (auto* side : {&cpu_, &gpu_}) load_weights((*side)->ctx(), HfFolder(folder), (*side)->state());
    for (int p = 0; p < cpu_->state().size(); ++p) {
      const Tensor weight = cpu_->state().weight(p);
      for (int64_t i = 0; i < weight.elements(); ++i) weight.as<float>()[i] = to_float(to_bf16(weight.as<float>()[i]));
    }
    const Config config = load_config(folder + "/train.yaml", {{"model_name_or_path", folder},
                                                               {"train_file", folder + "/train.jsonl"},
                                                               {"output_dir", folder + "/none"},
                                                               {"data_cache", "off"}});
    documents_ = load_run_data(config, config_).train;
    loader_.emplace(*documents_, PlanOptions{.max_seq_length = documents_->max_length(), .epochs = 1},
                    documents_->size(), 1);
    batches_ = {loader_->load(0).micro_batches[0]};
  }

  struct Changes {
    int64_t tokens = 0;
    Errors gaps;  // between the reference's logits of an expert that left and of one that came
  };
  Changes changes(const LogitNoise& noise, const Forward& actual, int64_t layer) {
    const auto chosen = [&](const Forward& of, int64_t t) {
      const int32_t* experts = of.experts[layer].tensor().row(t).as<int32_t>();
      return std::vector<int32_t>(experts, experts + config_.num_experts_per_tok);
    };
    const auto without = [](std::vector<int32_t> all, const std::vector<int32_t>& some) {
      std::erase_if(all, [&](int32_t e) { return std::ranges::find(some, e) != some.end(); });
      return all;
    };
    Changes changes;
    for (int64_t t = 0; t < batch_.live_tokens; ++t) {
      const auto want = chosen(*reference_, t), got = chosen(actual, t);
      const auto left = without(want, got), came = without(got, want);
      const Tensor logits = reference_->router_logits[layer].tensor().row(t);
      changes.tokens += !left.empty();
      for (const int32_t a : left)
        for (const int32_t b : came)
          changes.gaps.add(element(logits, a) - element(logits, b), kSigmas * noise.sigma(t, a, b));
    }
    return changes;
  }

  Errors logit_errors(const LogitNoise& noise, const HostCopy& got, const HostCopy& want) {
    Errors errors;
    for (int64_t v = 0; v < noise.logits(); ++v)
      for (int64_t t = 0; t < batch_.live_tokens; ++t)
        errors.add(element(got.tensor().row(t), v) - element(want.tensor().row(t), v), kSigmas * noise.sigma(t, v));
    return errors;
  }

  ForwardNoise forward_noise() {
    return ForwardNoise(*cpu_, batch_, *reference_, cpu_replays_[gpu_->ranks().grid.rank]->layers());
  }

  // The errors of the gradients of all ranks' batches together, relative to their norms.
  std::map<std::string, double> noise_of_all(const std::map<std::string, Tensor>& expected) {
    std::map<std::string, double> squares;
    for (size_t i = 0; i < batches_.size(); ++i) {
      const std::vector<Tensor>& routing = cpu_replays_[i]->layers();
      const Backward alone = run_backward(*cpu_, {&batches_[i], 1}, {routing});
      const std::map<std::string, Tensor> gradients = by_hub_name(cpu_->state(), alone.gradients);
      const double share = static_cast<double>(batches_[i].target_tokens()) / static_cast<double>(targets_of(batches_));
      for (const auto& [name, noise] : gradient_noise(*cpu_, batches_[i], gradients, routing)) {
        NormError of_batch, of_all;
        of_batch.add(gradients.at(name), gradients.at(name));
        of_all.add(expected.at(name), expected.at(name));
        if (of_batch.reference > 0) squares[name] += std::pow(share * noise, 2) * of_batch.reference / of_all.reference;
      }
    }
    for (auto& [name, square] : squares) square = std::sqrt(square);
    return squares;
  }

  MixtralConfig config_;
  std::optional<Instance> cpu_, gpu_;
  std::vector<std::unique_ptr<TestData>> data_;
  std::shared_ptr<const Documents> documents_;
  std::optional<Loader> loader_;
  std::vector<Batch> batches_;  // of each rank
  Batch batch_;                 // of this one
  std::optional<Forward> reference_;
  std::vector<std::unique_ptr<Replay>> cpu_replays_;  // of each rank's batch
  std::optional<Replay> gpu_replay_;
};

TEST_P(Bf16Parity, ForwardWithReplayedRouting) {
  const Forward actual = run_forward(*gpu_, batch_, gpu_replay_->layers());
  const ForwardNoise noise = forward_noise();
  const Errors logits = logit_errors(noise.head(), actual.logits, reference_->logits);
  fmt::print("logits, in units of the bound: worst {:.3f}, mean {:.3f}\n", logits.worst, logits.mean());
  EXPECT_LT(logits.worst, 1);
  for (int64_t l = 0; l < config_.num_hidden_layers; ++l) {
    const Errors router = logit_errors(noise.router(l), actual.router_logits[l], reference_->router_logits[l]);
    fmt::print("router logits of layer {}: worst {:.3f}, mean {:.3f}\n", l, router.worst, router.mean());
    EXPECT_LT(router.worst, 1) << "layer " << l;
  }
}

TEST_P(Bf16Parity, GradientsWithReplayedRouting) {
  const Backward want = run_backward(*cpu_, batches_),
                 got = run_backward(*gpu_, {&batch_, 1}, {gpu_replay_->layers()}, targets_of(batches_));
  fmt::print("loss {:.6f}, off by {:.1e} of it\n", want.loss, std::abs(got.loss / want.loss - 1));
  EXPECT_NEAR(got.loss, want.loss, kLoss * want.loss);

  const std::map<std::string, Tensor> expected = by_hub_name(cpu_->state(), want.gradients);
  const std::map<std::string, double> noise = noise_of_all(expected);
  NormError all;
  for (const auto& [name, gradient] : expected) all.add(gradient, gradient);
  Errors errors;
  for (const auto& [name, actual] : by_hub_name(gpu_->state(), got.gradients)) {
    NormError error;
    error.add(actual, expected.at(name));
    if (error.reference < 1e-14 * all.reference) {  // an expert without tokens, a top-1 router
      EXPECT_LT(error.difference, 1e-12 * all.reference) << name << ", exactly zero";
      continue;
    }
    errors.add(error.relative(), kNormSigmas * noise.at(name));
    EXPECT_LT(error.relative(), kNormSigmas * noise.at(name)) << name;
  }
  fmt::print("gradients, in units of the bound: worst {:.3f}, mean {:.3f}\n", errors.worst, errors.mean());
}

// A router is free behind layers whose routing is replayed, layer by layer: so every one of its choices can be judged.
TEST_P(Bf16Parity, FreeRoutingChangesOnlyCloseChoices) {
  const ForwardNoise noise = forward_noise();
  const int64_t layers = config_.num_hidden_layers;
  const auto percent = [&](int64_t changed, int64_t of_layers) {
    return 100.0 * static_cast<double>(changed) / static_cast<double>(batch_.live_tokens * of_layers);
  };
  for (int64_t l = 0; l < layers; ++l) {
    const Forward actual = run_forward(*gpu_, batch_, gpu_replay_->layers_before(l));
    const Changes here = changes(noise.router(l), actual, l);
    fmt::print("layer {}: {:.2f}% of the tokens changed experts; widest gap, in units of the bound: {:.3f}\n", l,
               percent(here.tokens, 1), here.gaps.worst);
    EXPECT_LT(here.gaps.worst, 1) << "layer " << l;
    if (l > 0) continue;
    int64_t all = 0;
    for (int64_t each = 0; each < layers; ++each) all += changes(noise.router(each), actual, each).tokens;
    fmt::print("all layers free: {:.2f}% changed\n", percent(all, layers));
  }
}

std::vector<Where> all_models() {
  std::vector<Where> all;
  for (const char* model : {"packed", "plain", "sharded_bf16", "tied", "top1", "top3_window", kMiddleSize})
    for (const bool deterministic : {false, true}) all.push_back({model, deterministic});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Models, Bf16Parity, testing::ValuesIn(all_models()), [](const auto& where) {
  return where.param.model + (where.param.deterministic ? "_deterministic" : "");
});

}  // namespace
}  // namespace mixtune
