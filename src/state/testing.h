// A training of a few weights that tests of this folder share: AdamW on one rank and on two, which are threads.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <csignal>
#include <functional>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "parallel/gloo_communicator.h"
#include "parallel/ranks.h"
#include "parallel/testing.h"
#include "state/adamw.h"

namespace mixtune {

inline constexpr std::chrono::seconds kTimeout{20};
inline constexpr int64_t kRows = 64, kWidth = 97;

struct Layout {
  int ranks, expert_parallel, zero_stage;
};
inline constexpr Layout kAlone = {1, 1, 0};
inline constexpr Layout kLayouts[] = {{2, 1, 0}, {2, 1, 1}, {2, 2, 0}, {2, 2, 1}};

// Two tensors in one parameter, two experts as tensors of their own, two as rows of one tensor, and a bucket of a
// router and a norm. Pieces of ZeRO begin and end within tensors.
inline std::vector<ParamSpec> specs_of(const RankGrid& grid) {
  const int64_t held = 2 / grid.expert_parallel, first = grid.expert_parallel == 2 ? grid.rank : 0;
  const Shape matrix = {kRows, kWidth}, packed = {2, 3 * kWidth};
  const auto whole = [&](const char* name, int64_t offset) {
    return HfBlock{.name = name, .box = Box(matrix), .offset = offset};
  };
  std::vector<HfBlock> experts;
  for (int64_t e = first; e < first + held; ++e)
    experts.push_back(whole(e == 0 ? "expert 0" : "expert 1", (e - first) * matrix.elements()));
  return {{.name = "qk",
           .shape = {2 * kRows, kWidth},
           .blocks = {whole("q", 0), whole("k", matrix.elements())},
           .group = WeightGroup::kAttention},
          {.name = "experts",
           .shape = {held, kRows, kWidth},
           .blocks = experts,
           .group = WeightGroup::kExperts,
           .of_experts = true,
           .place = {.layer = 1}},
          {.name = "packed",
           .shape = {held, 3 * kWidth},
           .blocks = {{.name = "packed", .box = Box(packed).cut(0, first, held)}},
           .group = WeightGroup::kExperts,
           .of_experts = true,
           .place = {.layer = 1}},
          {.name = "router",
           .shape = {2, kWidth},
           .blocks = {{.name = "router", .box = Box({2, kWidth})}},
           .group = WeightGroup::kRouter,
           .place = {.layer = 2}},
          {.name = "norm",
           .shape = {kWidth},
           .blocks = {{.name = "norm", .box = Box({kWidth})}},
           .group = WeightGroup::kNorms,
           .place = {.layer = 2}}};
}

inline double element(const Tensor& t, int64_t i) {
  return t.dtype == DType::kBF16 ? to_float(t.as<BF16>()[i]) : t.as<float>()[i];
}

inline void fill(const Tensor& t, double value) {
  for (int64_t i = 0; i < t.elements(); ++i)
    if (t.dtype == DType::kBF16)
      t.as<BF16>()[i] = to_bf16(static_cast<float>(value));
    else
      t.as<float>()[i] = static_cast<float>(value);
}

// Each Hugging Face tensor, whole: NaN where nobody has it.
using Tensors = std::map<std::string, std::vector<double>>;
struct Trained {
  Tensors weights, masters, first_moments, second_moments;
};

// Puts `values`, the part `held` of a parameter, into the Hugging Face tensors.
inline void collect(Tensors& tensors, const ParamSpec& spec, const ParamLayout::Piece& held, const Tensor& values) {
  if (!values) return;
  for (const HfBlock& slice : spec.blocks) {
    std::vector<double>& all = tensors[slice.name];
    all.resize(slice.shape().elements(), std::numeric_limits<double>::quiet_NaN());
    for (int64_t i = 0; i < slice.elements(); ++i)
      if (const int64_t at = slice.offset + i - held.begin; at >= 0 && at < held.count)
        all[slice.box.place(i)] = element(values, at);
  }
}

// One rank of a training from weights of 1. Every gradient is 1 over all ranks together: in exact arithmetic AdamW
// without decay then takes its learning rate from each weight in each step.
class RankTraining {
 public:
  RankTraining(const Ranks& ranks, const StateTypes& types, int zero_stage, const OptimizerSettings& settings)
      : ranks_(ranks),
        state_(specs_of(ranks.grid), {}, types, State::Purpose::kTraining, replicas(ranks, zero_stage)),
        optimizer_(state_, settings, 42) {
    for (int p = 0; p < state_.size(); ++p) reset(p);
  }

  void reset(int p) {
    fill(state_.weight(p), 1);
    if (state_.master(p)) fill(state_.master(p), 1);
  }

  void step(int64_t step) {
    state_.gradients().begin_step();
    for (int p = 0; p < state_.size(); ++p) {
      const Communicator* holders = state_.spec(p).of_experts ? ranks_.experts.get() : ranks_.dense.get();
      fill(state_.gradients().gradient(p).tensor, 1.0 / (holders ? holders->size() : 1));
      state_.gradients().notify(p);
    }
    state_.gradients().finish(ctx_);
    double scale = 1;
    optimizer_.step(ctx_, {.step = step, .lr_share = 1, .grad_scale = host_tensor(&scale, {1})});
    state_.weight_sync().await_all(ctx_);
  }

  Trained result() const {
    Trained trained;
    for (int p = 0; p < state_.size(); ++p) {
      const ParamSpec& spec = state_.spec(p);
      collect(trained.weights, spec, {0, state_.weight(p).elements()}, state_.weight(p));
      collect(trained.masters, spec, state_.layout().owned(p), state_.master(p));
      collect(trained.first_moments, spec, state_.layout().owned(p), state_.first_moment(p));
      collect(trained.second_moments, spec, state_.layout().owned(p), state_.second_moment(p));
    }
    return trained;
  }

 private:
  static Replicas replicas(const Ranks& ranks, int zero_stage) {
    return {ranks.dense.get(), ranks.experts.get(), zero_stage == 1};
  }

  const Ranks& ranks_;
  State state_;
  Stack stack_{"test", {}, size_t{16} << 20};
  Ctx ctx_{{}, stack_, stack_};
  AdamW optimizer_;
};

inline void run_ranks(const Layout& layout, const std::function<void(const Ranks&)>& body) {
  if (layout.ranks == 1) return body(single_rank());
  std::signal(SIGPIPE, SIG_IGN);  // as the program does
  MemoryStore store(kTimeout);
  std::vector<std::thread> threads;
  for (int r = 0; r < layout.ranks; ++r)
    threads.emplace_back([&, r] {
      try {
        body(make_ranks(make_gloo_communicator(store, {.rank = r, .size = layout.ranks, .timeout = kTimeout}),
                        {.world = layout.ranks, .rank = r, .expert_parallel = layout.expert_parallel}));
      } catch (const std::exception& error) {
        ADD_FAILURE() << "rank " << r << ": " << error.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
}

// Adds a rank's tensors to `all`. Where two ranks have an element, it must be the same.
inline void merge(const Tensors& from, Tensors& all) {
  for (const auto& [name, values] : from) {
    const auto [at, is_new] = all.emplace(name, values);
    if (is_new) continue;
    for (size_t i = 0; i < values.size(); ++i) {
      if (std::isnan(values[i])) continue;
      double& known = at->second[i];
      if (std::isnan(known)) known = values[i];
      ASSERT_EQ(values[i], known) << name << ", element " << i;
    }
  }
}

inline Trained train(const Layout& layout, const StateTypes& types, int64_t steps, const OptimizerSettings& settings) {
  std::mutex mutex;
  Trained all;
  run_ranks(layout, [&](const Ranks& ranks) {
    RankTraining rank(ranks, types, layout.zero_stage, settings);
    for (int64_t step = 1; step <= steps; ++step) rank.step(step);
    const std::lock_guard lock(mutex);
    const Trained here = rank.result();
    for (const auto kind : {&Trained::weights, &Trained::masters, &Trained::first_moments, &Trained::second_moments})
      merge(here.*kind, all.*kind);
  });
  return all;
}

}  // namespace mixtune
