// Training with Megatron-Core's router losses on the CPU, as Megatron-Core's own router inside transformers' model does
// it: the fixtures of scripts/make_megatron_router_fixtures.py.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/json_value.h"
#include "base/temp_folder.h"
#include "base/test_paths.h"
#include "config/load.h"
#include "expected_tensors.h"
#include "sameness.h"
#include "train/trainer.h"

namespace mixtune {
namespace {

using nlohmann::json;

// A norm over steps is of gradients at weights that differ by what sums in another order have made of them: 1.7e-5 was
// seen in fp32 with a compiler's other order.
constexpr double kOnEqualWeights = 1e-6, kOverSteps = 1e-5, kNormsOverSteps = 1e-4, kTensors = 1e-4, kWeights = 1e-3;

// Of losses, and of other choices of experts.
constexpr std::array kFixtures = {"megatron_router", "megatron_choice"};

std::string folder_of(const char* fixture) {
  return source_path(fmt::format("tests/fixtures/{}", fixture));
}

const json& run_of(const std::string& name) {
  static const json runs = [] {
    json all;
    for (const char* fixture : kFixtures) {
      json expected = json::parse(std::ifstream(folder_of(fixture) + "/expected.json"));
      for (json& run : expected["runs"]) {
        run["folder"] = folder_of(fixture);
        all[run["name"].get<std::string>()] = run;
      }
    }
    return all;
  }();
  return runs.at(name);
}

// What tells two trainings apart, each relative to the fixture and in units of its bound: up to 1 is the same.
struct Errors {
  double figures = 0;      // of any step: loss, its parts, learning rate
  double norms = 0;        // of any step: the gradient's
  double first_gates = 0;  // the farthest gate's gradient in the first step
  double weights = 0;      // the model's after the last step, of the whole update
  double bias = 0;         // the experts', after the last step: not in units of a bound, as it is the same to the bit
};

class MegatronRouterParity : public testing::TestWithParam<std::string> {
 protected:
  // Trains the documents of `run` with `settings`.
  Errors errors_of(const json& run, const json& settings) {
    Trainer trainer(load_config(run["folder"].get<std::string>() + "/train.yaml", overrides(run, settings)));
    const State& state = trainer.instance().state();
    Ctx& ctx = trainer.instance().ctx();
    const HostCopies start(ctx, state, [&](int p) { return state.weight(p); });
    EXPECT_EQ(trainer.total_steps(), static_cast<int64_t>(run["steps"].size()));

    Errors errors;
    for (int64_t step = 1; step <= trainer.total_steps(); ++step) {
      add_figures(trainer.step(step), run["steps"][step - 1], errors);
      if (step == 1) errors.first_gates = gates_error(run, trainer.instance()) / kTensors;
    }
    const HostCopies weights(ctx, state, [&](int p) { return state.weight(p); });
    NormError error;
    std::map<std::string, Tensor> before;
    for_each_hub_tensor(
        state, [&](int p) { return start[p]; },
        [&](const HfBlock& slice, const Tensor& tensor) { before[slice.name] = tensor; });
    for_each_hub_tensor(
        state, [&](int p) { return weights[p]; },
        [&](const HfBlock& slice, const Tensor& tensor) {
          error.add_update(tensor, expected(run, "weight", slice), before.at(slice.name));
        });
    errors.weights = error.relative() / kWeights;
    errors.bias = bias_error(run, trainer.instance().expert_bias().values());
    return errors;
  }

 private:
  Overrides overrides(const json& run, const json& settings) const {
    const std::string folder = run["folder"];
    Overrides all = {{"model_name_or_path", folder},
                     {"train_file", fmt::format("{}/{}.jsonl", folder, run["data"].get<std::string>())},
                     {"output_dir", folder_ / "out"},
                     {"data_cache", "off"},
                     {"device", "cpu"}};
    for (const auto& [key, value] : settings.items())
      for (const json& item : value.is_array() ? value : json::array({value}))
        all.emplace_back(key, item.is_string() ? item.get<std::string>() : item.dump());
    return all;
  }

  Tensor expected(const json& run, const char* kind, const HfBlock& slice) {
    return tensors_.get(fmt::format("{}.{}.{}", run["name"].get<std::string>(), kind, slice.name), slice.elements());
  }

  static void add_figures(const StepRecord& record, const json& expected, Errors& errors) {
    const double bound = record.step == 1 ? kOnEqualWeights : kOverSteps;
    const auto error = [&](double actual, const char* name) {
      return std::abs(actual / expected[name].get<double>() - 1) / bound;
    };
    errors.figures = std::max({errors.figures, error(record.loss, "loss"), error(record.lm_loss, "lm_loss"),
                               error(record.learning_rate, "learning_rate")});
    if (expected.contains("aux_loss")) errors.figures = std::max(errors.figures, error(record.aux_loss, "aux_loss"));
    if (expected.contains("z_loss")) errors.figures = std::max(errors.figures, error(record.z_loss, "z_loss"));
    const double norm = std::abs(record.grad_norm / expected["grad_norm"].get<double>() - 1);
    errors.norms = std::max(errors.norms, norm / (record.step == 1 ? kOnEqualWeights : kNormsOverSteps));
    EXPECT_EQ(record.tokens, expected["tokens"]);
  }

  static double bias_error(const json& run, std::span<const float> bias) {
    double farthest = 0;
    size_t i = 0;
    if (run.contains("expert_bias"))
      for (const json& layer : run["expert_bias"])
        for (const json& expected : layer)
          farthest = std::max(farthest, std::abs(static_cast<double>(bias[i++]) - expected.get<double>()));
    EXPECT_EQ(i, bias.size());
    return farthest;
  }

  double gates_error(const json& run, Instance& instance) {
    State& state = instance.state();
    const HostCopies gradients(instance.ctx(), state,
                               [&](int p) { return state.gradients().finished(instance.ctx(), p); });
    double farthest = 0;
    int gates = 0;
    for_each_hub_tensor(
        state, [&](int p) { return gradients[p]; },
        [&](const HfBlock& slice, const Tensor& tensor) {
          if (!slice.name.ends_with(".gate.weight")) return;
          NormError error;
          error.add(tensor, expected(run, "grad", slice));
          farthest = std::max(farthest, error.relative());
          ++gates;
        });
    EXPECT_EQ(gates, 4);
    return farthest;
  }

  TempFolder folder_;
  ExpectedTensors tensors_{run_of(GetParam())["folder"].get<std::string>() + "/expected.safetensors"};
};

TEST_P(MegatronRouterParity, SixSteps) {
  const json& run = run_of(GetParam());
  const Errors errors = errors_of(run, run["settings"]);
  EXPECT_LE(errors.figures, 1);
  EXPECT_LE(errors.norms, 1);
  EXPECT_LE(errors.first_gates, 1);
  EXPECT_LE(errors.weights, 1);
  EXPECT_EQ(errors.bias, 0);
}

// The losses, the norm and the gates' gradients each show it.
TEST_P(MegatronRouterParity, NoCoefficientMayBeOnePercentOff) {
  const json& run = run_of(GetParam());
  const auto expect_told_apart = [&](json settings, const json::json_pointer& coefficient) {
    settings[coefficient] = 1.01 * settings[coefficient].get<double>();
    const Errors errors = errors_of(run, settings);
    EXPECT_GT(errors.figures, 1) << settings;
    EXPECT_GT(errors.norms, 1) << settings;
    EXPECT_GT(errors.first_gates, 1) << settings;
  };
  const json& settings = run["settings"];
  const json::json_pointer balancing("/moe_aux_loss_coeff"), z("/moe_z_loss_coeff");
  for (size_t i = 0; settings.contains(balancing) && i < settings[balancing].size(); ++i)
    expect_told_apart(settings, balancing / i);
  if (settings.contains(z)) expect_told_apart(settings, z);
}

// Neither Sinkhorn's choice nor a bias may be missing, nor a bias be moved by one percent more.
TEST_P(MegatronRouterParity, TheChoiceShows) {
  const json& run = run_of(GetParam());
  const auto errors_with = [&](const json& changes) {
    json settings = run["settings"];
    settings.update(changes);
    return errors_of(run, settings);
  };
  const json none = {{"moe_router_load_balancing_type", {"none"}}};
  if (run["name"] == "sinkhorn") {
    json changes = none;
    changes["moe_router_pre_softmax"] = true;
    EXPECT_GT(errors_with(changes).figures, 1);
  } else if (run["name"] == "sinkhorn_top1_and_z") {
    json changes = none;
    changes["moe_router_score_function"] = "sigmoid";
    EXPECT_GT(errors_with(changes).figures, 1);
  } else if (run["name"] == "expert_bias") {
    EXPECT_GT(errors_with({{"moe_router_bias_update_rate", 0}}).figures, 1);
    const double rate = run["settings"]["moe_router_bias_update_rate"];
    EXPECT_GT(errors_with({{"moe_router_bias_update_rate", 1.01 * rate}}).bias, 0);
  }
}

TEST_P(MegatronRouterParity, NoLossStandsForAnother) {
  const json& run = run_of(GetParam());
  const json::json_pointer types("/moe_router_load_balancing_type");
  if (!run["settings"].contains(types) || run["settings"][types].size() > 1) return;
  if (!run["settings"].contains("moe_aux_loss_coeff")) return;
  const json own = run["settings"][types][0];
  for (const char* other : {"aux_loss", "seq_aux_loss", "global_aux_loss"}) {
    if (own == other) continue;
    json settings = run["settings"];
    settings[types][0] = other;
    const Errors errors = errors_of(run, settings);
    EXPECT_GT(errors.figures, 1) << settings;
    EXPECT_GT(errors.norms, 1) << settings;
    EXPECT_GT(errors.first_gates, 1) << settings;
    EXPECT_GT(errors.weights, 1) << settings;
  }
}

INSTANTIATE_TEST_SUITE_P(Runs, MegatronRouterParity,
                         testing::Values("aux_loss", "global_aux_loss", "z_loss", "aux_and_z_loss", "seq_aux_loss",
                                         "sinkhorn", "sinkhorn_top1_and_z", "expert_bias", "all"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace mixtune
