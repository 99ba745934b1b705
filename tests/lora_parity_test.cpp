// Training LoRA adapters on the CPU as PEFT does it in transformers' model: the fixture of
// scripts/make_lora_fixtures.py, through the library, and on several ranks through the program.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "base/json_value.h"
#include "base/temp_folder.h"
#include "base/test_paths.h"
#include "checkpoint/convert.h"
#include "config/load.h"
#include "expected_tensors.h"
#include "sameness.h"
#include "state/adapter_names.h"
#include "train/trainer.h"

namespace mixtune {
namespace {

using nlohmann::json;

// Of a gradient's norm over steps: of weights that differ by what sums in another order have made of them.
constexpr double kOnEqualWeights = 1e-6, kOverSteps = 1e-5, kNormsOverSteps = 1e-4, kTensors = 1e-4;
// Of each factor after the last step: |difference| / |what the steps have added to it|. Adam divides by the gradient's
// own size, so that where that is near 0 rounding decides: a few elements may differ by a part of a step, a norm is of
// all.
constexpr double kFactors = 5e-4;

const std::string kFolder = source_path("tests/fixtures/lora"), kBase = source_path("tests/fixtures/hf/plain");

const json& run_of(const std::string& name) {
  static const json expected = json::parse(std::ifstream(kFolder + "/expected.json"));
  for (const json& run : expected["runs"])
    if (run["name"] == name) return run;
  throw std::runtime_error("the fixture has no " + name);
}

// What tells two trainings apart, each relative to the fixture and in units of its bound: up to 1 is the same.
struct Errors {
  double figures = 0;  // of any step: loss, its parts, learning rate
  double norms = 0;    // of any step: the gradient's
  double factors = 0;  // of the pairs' after the last step: the farthest
};

class LoraParity : public testing::TestWithParam<std::string> {
 protected:
  const json& run() const { return run_of(GetParam()); }

  Overrides overrides(const json& settings) const {
    Overrides all = {{"model_name_or_path", kBase},
                     {"adapter", "lora"},
                     {"adapter_name_or_path", kFolder + "/" + GetParam()},
                     {"train_file", kFolder + "/train.jsonl"},
                     {"output_dir", out_},
                     {"data_cache", "off"},
                     {"device", "cpu"}};
    for (const auto& [key, value] : settings.items())
      for (const json& item : value.is_array() ? value : json::array({value}))
        all.emplace_back(key, item.is_string() ? item.get<std::string>() : item.dump());
    return all;
  }

  Tensor expected(const std::string& kind, const std::string& name, int64_t elements) {
    return tensors_.get(fmt::format("{}.{}.{}", GetParam(), kind, name), elements);
  }

  // A record of a step against that of the fixture.
  template <class Record>
  void add_figures(const Record& record, Errors& errors) const {
    const auto step = record["step"].template get<int64_t>();
    const json& want = run()["steps"].at(step - 1);
    const auto error = [&](const char* name) {
      return std::abs(record[name].template get<double>() / want[name].template get<double>() - 1);
    };
    for (const char* name : {"loss", "lm_loss", "aux_loss", "learning_rate"})
      errors.figures = std::max(errors.figures, error(name) / (step == 1 ? kOnEqualWeights : kOverSteps));
    errors.norms = std::max(errors.norms, error("grad_norm") / (step == 1 ? kOnEqualWeights : kNormsOverSteps));
    EXPECT_EQ(record["tokens"], want["tokens"]);
  }

  void add_factor(const std::string& name, const Tensor& tensor, Errors& errors) {
    NormError error;
    error.add_update(tensor, expected("weight", name, tensor.elements()), begun_.get(name, tensor.elements()));
    EXPECT_GT(error.reference, 0) << name;
    errors.factors = std::max(errors.factors, error.relative() / kFactors);
  }

  // Trains in this process. With `gradients`, those of the first step are held against the fixture.
  Errors errors_of(const json& settings, bool gradients = false) {
    Trainer trainer(load_config(kFolder + "/train.yaml", overrides(settings)));
    const State& state = trainer.instance().state();
    EXPECT_EQ(trainer.total_steps(), static_cast<int64_t>(run()["steps"].size()));
    Errors errors;
    for (int64_t step = 1; step <= trainer.total_steps(); ++step) {
      const StepRecord r = trainer.step(step);
      add_figures(json{{"step", r.step},
                       {"loss", r.loss},
                       {"lm_loss", r.lm_loss},
                       {"aux_loss", r.aux_loss},
                       {"grad_norm", r.grad_norm},
                       {"learning_rate", r.learning_rate},
                       {"tokens", r.tokens}},
                  errors);
      if (step == 1 && gradients) expect_gradients(trainer.instance());
    }
    for_each_factor(
        state, [&](int p) { return state.weight(p); },
        [&](const std::string& name, const Tensor& tensor) { add_factor(name, tensor, errors); });
    return errors;
  }

  // Trains through the program, on its ranks.
  Errors errors_of_program(const std::string& layout) {
    std::string command = fmt::format("{} train {}/train.yaml {}", program_path("mixtune"), kFolder, layout);
    for (const auto& [key, value] : overrides(run()["settings"])) command += fmt::format(" --{} '{}'", key, value);
    EXPECT_EQ(std::system((command + " > /dev/null").c_str()), 0) << command;

    Errors errors;
    size_t steps = 0;
    std::ifstream metrics(out_ + "/metrics.jsonl");
    for (std::string line; std::getline(metrics, line); ++steps) add_figures(json::parse(line), errors);
    EXPECT_EQ(steps, run()["steps"].size());
    const std::string weights = fmt::format("{}/checkpoint-{}/adapter_model.safetensors", out_, steps);
    const SafetensorsFile file(weights);
    ExpectedTensors trained(weights);
    EXPECT_EQ(file.tensors().size(), begun_file_.tensors().size());
    for (const auto& [name, stored] : file.tensors())
      add_factor(name, trained.get(name, stored.shape.elements()), errors);
    return errors;
  }

 private:
  // And each weight that is trained whole; by the names of an adapter's file.
  template <class TensorOf, class Check>
  static void for_each_factor(const State& state, const TensorOf& tensor_of, const Check& check) {
    for (int p = 0; p < state.size(); ++p) {
      if (!state.spec(p).trainable) continue;
      const Tensor all = tensor_of(p);
      for (const HfBlock& block : state.spec(p).blocks) {
        Tensor part = all.view({all.elements()}).slice(block.offset, block.elements());
        std::vector<std::byte> as_in_files;
        if (is_embedding_factor(block.name)) {
          as_in_files = transposed(bytes_of(part), dtype_size(part.dtype), block.shape());
          part.data = as_in_files.data();
        }
        check(state.spec(p).origin == ParamSpec::Origin::kInitialised
                  ? block.name
                  : adapter_tensor_name(module_of(block.name), AdapterFactor::kWhole, AdapterNaming::kHub),
              part);
      }
    }
  }

  void expect_gradients(Instance& instance) {
    State& state = instance.state();
    size_t factors = 0;
    for_each_factor(
        state, [&](int p) { return state.gradients().finished(instance.ctx(), p); },
        [&](const std::string& name, const Tensor& tensor) {
          NormError error;
          error.add(tensor, expected("grad", name, tensor.elements()));
          EXPECT_LT(error.relative(), kTensors) << name;
          ++factors;
        });
    EXPECT_EQ(factors, begun_file_.tensors().size());
  }

  TempFolder folder_;
  ExpectedTensors tensors_{kFolder + "/expected.safetensors"};
  SafetensorsFile begun_file_{kFolder + "/" + GetParam() + "/adapter_model.safetensors"};
  ExpectedTensors begun_{kFolder + "/" + GetParam() + "/adapter_model.safetensors"};

 protected:
  std::string out_ = folder_ / "out";
};

void expect_same(const Errors& errors) {
  fmt::print("figures {:.3f}, norms {:.3f}, factors {:.3f} of their bounds\n", errors.figures, errors.norms,
             errors.factors);
  EXPECT_LE(errors.figures, 1);
  EXPECT_LE(errors.norms, 1);
  EXPECT_LE(errors.factors, 1);
}

TEST_P(LoraParity, SixSteps) {
  expect_same(errors_of(run()["settings"], true));
}

TEST_P(LoraParity, OneRank) {
  expect_same(errors_of_program(""));
}

TEST_P(LoraParity, TwoRanks) {
  for (const char* zero : {"--zero_stage 0", "--zero_stage 1"}) {
    std::filesystem::remove_all(out_);
    expect_same(errors_of_program(fmt::format("--nproc 2 --per_device_train_batch_size 2 {}", zero)));
  }
}

TEST_P(LoraParity, TwoRanksShareTheExperts) {
  expect_same(errors_of_program("--nproc 2 --per_device_train_batch_size 2 --expert_model_parallel_size 2"));
}

// Also not the coefficient of the gates' loss, though the gates are frozen.
TEST_P(LoraParity, NothingMayBeOnePercentOff) {
  for (const char* key : {"router_aux_loss_coef", "lora_alpha", "loraplus_lr_ratio"}) {
    json settings = run()["settings"];
    if (!settings.contains(key)) continue;
    settings[key] = 1.01 * settings[key].get<double>();
    const Errors errors = errors_of(settings);
    EXPECT_GT(errors.figures, 1) << key;
    EXPECT_GT(errors.norms, 1) << key;
    EXPECT_GT(errors.factors, 1) << key;
  }
}

INSTANTIATE_TEST_SUITE_P(Runs, LoraParity,
                         testing::Values("all_linear", "rslora", "loraplus", "whole", "gate", "head", "embedding"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace mixtune
