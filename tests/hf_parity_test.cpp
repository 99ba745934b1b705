// Training as transformers and PyTorch do it: the fixtures of scripts/make_hf_fixtures.py, through the library and
// through the command line, in fp32 on the CPU and on a GPU.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <vector>

#include "base/json_value.h"
#include "base/test_paths.h"
#include "checkpoint/load.h"
#include "config/load.h"
#include "expected_tensors.h"
#include "sameness.h"
#include "tensor/gpu_test.h"
#include "train/trainer.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr double kLossOnEqualWeights = 1e-6, kLossOverSteps = 1e-5, kTensors = 1e-4, kWeights = 1e-3, kLogits = 1e-5;
const std::string kMixtune = program_path("mixtune");
constexpr double kLossOnEqualWeightsOnGpu = 1e-5;
constexpr int64_t kLogitRows = 64;  // the last ones of the first micro-batch

json read_json(const std::string& path) {
  std::ifstream file(path);
  return json::parse(file);
}

struct Where {
  std::string fixture, device;  // cpu or cuda
};

class HfParity : public testing::TestWithParam<Where> {
 protected:
  HfParity()
      : folder_(source_path("tests/fixtures/hf/" + GetParam().fixture)),
        out_(fs::temp_directory_path() / fmt::format("mixtune-parity-{}-{}", GetParam().fixture, getpid())),
        expected_(read_json(folder_ + "/expected.json")),
        tensors_(folder_ + "/expected.safetensors") {}
  ~HfParity() override { fs::remove_all(out_); }

  void SetUp() override { need_gpus(like_gpu(), gpu_count()); }

  bool like_gpu() const { return GetParam().device == "cuda"; }

  Overrides overrides() const {
    return {{"model_name_or_path", folder_},
            {"train_file", folder_ + "/train.jsonl"},
            {"output_dir", out_.string()},
            {"data_cache", "off"},
            {"device", GetParam().device}};
  }

  Tensor expected(const std::string& name, int64_t elements) { return tensors_.get(name, elements); }

  // Expects a step record's parts of the loss and its norm; the first step ran on identical weights.
  template <class Record>
  void expect_step(int64_t step, const Record& actual) {
    const json& want = expected_["steps"][step - 1];
    for (const char* name : {"loss", "lm_loss", "aux_loss", "grad_norm", "learning_rate"}) {
      const double reference = want[name], bound = step > 1     ? kLossOverSteps
                                                   : like_gpu() ? kLossOnEqualWeightsOnGpu
                                                                : kLossOnEqualWeights;
      EXPECT_NEAR(actual[name].template get<double>(), reference, bound * std::abs(reference))
          << name << " of step " << step;
    }
    EXPECT_EQ(actual["tokens"], want["tokens"]);
  }

  // Compares the error of all weights together with the whole update from the starting weights. A tensor whose gradient
  // is exactly zero moves by noise: it is left out.
  template <class ActualOf, class StartOf>
  void expect_weights(const State& state, const ActualOf& actual_of, const StartOf& start_of) {
    NormError error;
    for_each_hub_tensor(state, start_of, [&](const HfBlock& slice, const Tensor& start) {
      const int64_t n = slice.elements();
      const Tensor gradient = expected("grad." + slice.name, n);
      double squares = 0;
      for (int64_t i = 0; i < n; ++i) squares += std::pow(element(gradient, i), 2);
      const double norm = expected_["steps"][0]["grad_norm"];
      if (std::sqrt(squares) < 1e-6 * norm) return;
      error.add_update(actual_of(slice), expected("weight." + slice.name, n), start);
    });
    ASSERT_GT(error.reference, 0);
    EXPECT_LT(error.relative(), kWeights);
  }

  std::string folder_;
  fs::path out_;
  json expected_;
  ExpectedTensors tensors_;
};

TEST_P(HfParity, Logits) {
  const Config config = load_config(folder_ + "/train.yaml", overrides());
  Instance instance(load_mixtral_config(folder_), instance_options(config, State::Purpose::kInference));
  load_weights(instance.ctx(), HfFolder(folder_), instance.state());
  const MixtralConfig& shape = instance.model().config();
  const std::shared_ptr<const Documents> documents = load_run_data(config, shape).train;
  Loader loader(*documents, {.max_seq_length = documents->max_length(), .epochs = 1},
                config.batch.per_device_train_batch_size, 1, instance.host_memory());
  Saved saved = instance.model().make_saved();
  Ctx& ctx = instance.ctx();
  const Batch batch = to_device(ctx, loader.load(0).micro_batches[0]);
  instance.model().begin_batch(ctx, batch, saved);
  const Tensor h = instance.model().layers(ctx, batch, instance.model().all_layers(),
                                           instance.model().embed(ctx, batch), saved, false);
  const Tensor logits = ctx.stack.push("logits", {batch.live_tokens, shape.vocab_size}, DType::kF32);
  instance.model().head_logits(ctx, h.slice(0, batch.live_tokens), logits);
  const HostCopy here(ctx, logits);
  const int64_t rows = std::min(kLogitRows, batch.live_tokens), before = (batch.live_tokens - rows) * shape.vocab_size;
  const Tensor want = expected("logits", rows * shape.vocab_size);
  for (int64_t i = 0; i < want.elements(); ++i)
    ASSERT_NEAR(element(here.tensor(), before + i), element(want, i), kLogits) << "token " << i / shape.vocab_size;
}

TEST_P(HfParity, FiveSteps) {
  const Config config = load_config(folder_ + "/train.yaml", overrides());
  Trainer trainer(config);
  State& state = trainer.instance().state();
  Ctx& ctx = trainer.instance().ctx();
  const HostCopies start(ctx, state, [&](int p) { return state.weight(p); });
  ASSERT_EQ(trainer.total_steps(), static_cast<int64_t>(expected_["steps"].size()));

  for (int64_t step = 1; step <= trainer.total_steps(); ++step) {
    const StepRecord r = trainer.step(step);
    expect_step(step, json{{"loss", r.loss},
                           {"lm_loss", r.lm_loss},
                           {"aux_loss", r.aux_loss},
                           {"grad_norm", r.grad_norm},
                           {"learning_rate", r.learning_rate},
                           {"tokens", r.tokens}});
    if (step > 1) continue;
    const HostCopies gradients(ctx, state, [&](int p) { return state.gradients().finished(ctx, p); });
    expect_tensors_same(
        "gradient", state, [&](int p) { return gradients[p]; },
        [&](const HfBlock& slice) { return expected("grad." + slice.name, slice.elements()); }, kTensors);
  }
  const HostCopies first(ctx, state, [&](int p) { return state.first_moment(p); });
  expect_tensors_same(
      "first moment", state, [&](int p) { return first[p]; },
      [&](const HfBlock& slice) { return expected("exp_avg." + slice.name, slice.elements()); }, kTensors);
  const HostCopies second(ctx, state, [&](int p) { return state.second_moment(p); });
  expect_tensors_same(
      "second moment", state, [&](int p) { return second[p]; },
      [&](const HfBlock& slice) { return expected("exp_avg_sq." + slice.name, slice.elements()); }, kTensors);
  const HostCopies weights(ctx, state, [&](int p) { return state.weight(p); });
  std::map<std::string, Tensor> actual;
  for_each_hub_tensor(
      state, [&](int p) { return weights[p]; },
      [&](const HfBlock& slice, const Tensor& tensor) { actual[slice.name] = tensor; });
  expect_weights(
      state, [&](const HfBlock& slice) { return actual.at(slice.name); }, [&](int p) { return start[p]; });
}

TEST_P(HfParity, CommandLine) {
  std::string command = fmt::format("{} train {}/train.yaml", kMixtune, folder_);
  for (const auto& [key, value] : overrides()) command += fmt::format(" --{} {}", key, value);
  ASSERT_EQ(std::system((command + " > /dev/null 2>&1").c_str()), 0) << command;

  std::ifstream metrics(out_ / "metrics.jsonl");
  int64_t steps = 0;
  for (std::string line; std::getline(metrics, line);) expect_step(++steps, json::parse(line));
  ASSERT_EQ(steps, static_cast<int64_t>(expected_["steps"].size()));

  std::string latest;
  std::ifstream(out_ / "latest") >> latest;
  ASSERT_EQ(latest, fmt::format("checkpoint-{}", steps));
  const MixtralConfig shape = load_mixtral_config(folder_);
  State before(make_layout(shape).specs, {}, DType::kF32, State::Purpose::kInference);
  State after(make_layout(load_mixtral_config(out_ / latest)).specs, {}, DType::kF32, State::Purpose::kInference);
  Stack stack("test", {}, 1 << 20);
  Ctx ctx{{}, stack, stack};
  load_weights(ctx, HfFolder(folder_), before);
  load_weights(ctx, HfFolder(out_ / latest), after);
  std::map<std::string, Tensor> actual;
  for_each_hub_tensor(
      after, [&](int p) { return after.weight(p); },
      [&](const HfBlock& slice, const Tensor& tensor) { actual[slice.name] = tensor; });
  expect_weights(
      before, [&](const HfBlock& slice) { return actual.at(slice.name); }, [&](int p) { return before.weight(p); });
}

TEST_P(HfParity, GreedyTokens) {
  for (const json& sample : expected_["greedy"]) {
    const std::vector<int> prompt = sample["prompt"], want = sample["tokens"];
    const std::string command = fmt::format("{} generate {} --ids {} --max-new-tokens {} --device {} --precision fp32",
                                            kMixtune, folder_, fmt::join(prompt, ","), want.size(), GetParam().device);
    std::unique_ptr<FILE, int (*)(FILE*)> output(popen(command.c_str(), "r"), pclose);
    std::vector<int> got;
    for (int id; std::fscanf(output.get(), "%d", &id) == 1;) got.push_back(id);
    EXPECT_EQ(got, want) << command;
  }
}

std::vector<Where> all_fixtures_everywhere() {
  std::vector<Where> all;
  for (const char* device : {"cpu", "cuda"})
    for (const char* fixture : {"long", "packed", "padded", "plain", "sharded_bf16", "tied", "top1", "top3_window"})
      all.push_back({fixture, device});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Fixtures, HfParity, testing::ValuesIn(all_fixtures_everywhere()),
                         [](const auto& where) { return where.param.fixture + "_" + where.param.device; });

}  // namespace
}  // namespace mixtune
