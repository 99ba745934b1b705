// Stochastic rounding as a training has it: AdamW on a bf16 State, on one rank and on two, which are threads.
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
namespace {

constexpr std::chrono::seconds kTimeout{20};
constexpr double kBf16Step = 0x1p-8;  // between the bf16 numbers below 1
constexpr int64_t kRows = 64, kWidth = 97;

struct Layout {
  int ranks, expert_parallel, zero_stage;
};
constexpr Layout kAlone = {1, 1, 0};
constexpr Layout kLayouts[] = {{2, 1, 0}, {2, 1, 1}, {2, 2, 0}, {2, 2, 1}};

// Two tensors in one parameter, two experts as tensors of their own, two as rows of one tensor, and a norm. Pieces of
// ZeRO begin and end within tensors.
std::vector<ParamSpec> specs_of(const RankGrid& grid) {
  const int64_t held = 2 / grid.expert_parallel, first = grid.expert_parallel == 2 ? grid.rank : 0;
  const Shape matrix = {kRows, kWidth}, packed = {2, 3 * kWidth};
  const auto whole = [&](const char* name, int64_t offset) {
    return HfBlock{.name = name, .box = Box(matrix), .offset = offset};
  };
  std::vector<HfBlock> experts;
  for (int64_t e = first; e < first + held; ++e)
    experts.push_back(whole(e == 0 ? "expert 0" : "expert 1", (e - first) * matrix.elements()));
  return {
      {.name = "qk", .shape = {2 * kRows, kWidth}, .blocks = {whole("q", 0), whole("k", matrix.elements())}},
      {.name = "experts", .shape = {held, kRows, kWidth}, .blocks = experts, .of_experts = true, .place = {.layer = 1}},
      {.name = "packed",
       .shape = {held, 3 * kWidth},
       .blocks = {{.name = "packed", .box = Box(packed).cut(0, first, held)}},
       .of_experts = true,
       .place = {.layer = 1}},
      {.name = "norm", .shape = {kWidth}, .blocks = {{.name = "norm", .box = Box({kWidth})}}, .place = {.layer = 2}}};
}

double element(const Tensor& t, int64_t i) {
  return t.dtype == DType::kBF16 ? to_float(t.as<BF16>()[i]) : t.as<float>()[i];
}

void fill(const Tensor& t, double value) {
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
void collect(Tensors& tensors, const ParamSpec& spec, const ParamLayout::Piece& held, const Tensor& values) {
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
// without decay then takes the learning rate from each weight in each step.
class RankTraining {
 public:
  RankTraining(const Ranks& ranks, const StateTypes& types, int zero_stage)
      : ranks_(ranks), state_(specs_of(ranks.grid), {}, types, State::Purpose::kTraining, replicas(ranks, zero_stage)) {
    for (int p = 0; p < state_.size(); ++p) reset(p);
  }

  void reset(int p) {
    fill(state_.weight(p), 1);
    if (state_.master(p)) fill(state_.master(p), 1);
  }

  void step(int64_t step, double learning_rate) {
    state_.gradients().begin_step();
    for (int p = 0; p < state_.size(); ++p) {
      const Communicator* holders = state_.spec(p).of_experts ? ranks_.experts.get() : ranks_.dense.get();
      fill(state_.gradients().gradient(p).tensor, 1.0 / (holders ? holders->size() : 1));
      state_.gradients().notify(p);
    }
    state_.gradients().finish(ctx_);
    double scale = 1;
    optimizer_.step(ctx_, {.step = step, .learning_rate = learning_rate, .grad_scale = host_tensor(&scale, {1})});
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
  AdamW optimizer_{state_, {.weight_decay = 0}, 42};
};

void run_ranks(const Layout& layout, const std::function<void(const Ranks&)>& body) {
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
void merge(const Tensors& from, Tensors& all) {
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

Trained train(const Layout& layout, const StateTypes& types, int64_t steps, double learning_rate) {
  std::mutex mutex;
  Trained all;
  run_ranks(layout, [&](const Ranks& ranks) {
    RankTraining rank(ranks, types, layout.zero_stage);
    for (int64_t step = 1; step <= steps; ++step) rank.step(step, learning_rate);
    const std::lock_guard lock(mutex);
    const Trained here = rank.result();
    for (const auto kind : {&Trained::weights, &Trained::masters, &Trained::first_moments, &Trained::second_moments})
      merge(here.*kind, all.*kind);
  });
  return all;
}

// The mean of the elements, and the share of those that are not 1.
struct Statistics {
  double mean = 0, moved = 0;

  explicit Statistics(const std::vector<double>& values) {
    for (const double value : values) {
      mean += value / static_cast<double>(values.size());
      moved += (value != 1) / static_cast<double>(values.size());
    }
  }
};

StateTypes bf16_types(bool masters, DType moments) {
  return {.weights = DType::kBF16, .gradients = DType::kF32, .moments = moments, .masters = masters};
}

TEST(StochasticRounding, GivesTheSameBitsOnAnyLayout) {
  for (const bool masters : {false, true})
    for (const DType moments : {DType::kF32, DType::kBF16}) {
      const Trained alone = train(kAlone, bf16_types(masters, moments), 20, 1e-3);
      ASSERT_EQ(alone.weights.size(), 6u);
      ASSERT_EQ(alone.masters.size(), masters ? 6u : 0u);
      for (const Layout& layout : kLayouts) {
        SCOPED_TRACE(testing::Message() << "ep " << layout.expert_parallel << ", zero " << layout.zero_stage
                                        << ", masters " << masters << ", moments " << dtype_name(moments));
        const Trained two = train(layout, bf16_types(masters, moments), 20, 1e-3);
        EXPECT_TRUE(two.weights == alone.weights);
        EXPECT_TRUE(two.masters == alone.masters);
        EXPECT_TRUE(two.first_moments == alone.first_moments);
        EXPECT_TRUE(two.second_moments == alone.second_moments);
      }
    }
}

// A weight leaves 1 with probability learning rate / kBf16Step in each step. The bits of steps are independent: this
// shows in the share that has left after 300 steps, and in a mean that moves as far as in exact arithmetic.
TEST(StochasticRounding, WeightsWithoutMastersFollowFp32) {
  constexpr int64_t kSteps = 300;
  constexpr double kRate = 1e-5;
  const double moved = 1 - std::pow(1 - kRate / kBf16Step, kSteps);
  for (const Layout& layout : {kAlone, kLayouts[1]})
    for (const auto& [name, weights] : train(layout, bf16_types(false, DType::kF32), kSteps, kRate).weights) {
      const Statistics got(weights);
      const auto n = static_cast<double>(weights.size());
      // The variance of a weight is at most that of its 300 roundings, each under rate * kBf16Step.
      EXPECT_NEAR(got.mean, 1 - kSteps * kRate, 4 * std::sqrt(kSteps * kRate * kBf16Step / n)) << name;
      EXPECT_NEAR(got.moved, moved, 4 * std::sqrt(moved * (1 - moved) / n)) << name;
    }
}

TEST(StochasticRounding, MastersFollowFp32AndWeightsAreTheirNearest) {
  constexpr int64_t kSteps = 300;
  const Trained trained = train(kLayouts[3], bf16_types(true, DType::kBF16), kSteps, 1e-5);
  for (const auto& [name, masters] : trained.masters) {
    // With bf16 moments m is within kBf16Step of its value in each step, v as well, and its root by half of that.
    EXPECT_NEAR(Statistics(masters).mean, 1 - kSteps * 1e-5, kSteps * 1e-5 * 2 * kBf16Step) << name;
    for (size_t i = 0; i < masters.size(); ++i)
      ASSERT_EQ(trained.weights.at(name)[i], to_float(to_bf16(static_cast<float>(masters[i])))) << name;
  }
}

TEST(StochasticRounding, MomentsFollowFp32) {
  constexpr int64_t kSteps = 300;
  const OptimizerSettings settings;
  const Trained trained = train(kLayouts[1], bf16_types(false, DType::kBF16), kSteps, 1e-5);
  const auto expect = [&](const Tensors& moments, double beta) {
    // Each rounding is off by at most half a kBf16Step in the square's mean; those of 1 / (1 - beta^2) steps add up.
    const double sigma = kBf16Step / 2 * std::sqrt(std::min<double>(kSteps, 1 / (1 - beta * beta)));
    for (const auto& [name, values] : moments)
      EXPECT_NEAR(Statistics(values).mean, 1 - std::pow(beta, kSteps),
                  4 * sigma / std::sqrt(static_cast<double>(values.size())))
          << name;
  };
  expect(trained.first_moments, settings.adam_beta1);
  expect(trained.second_moments, settings.adam_beta2);
}

// The share of elements that moved in both or in neither.
double agreement(const std::vector<double>& a, const std::vector<double>& b) {
  double same = 0;
  for (size_t i = 0; i < a.size(); ++i) same += (a[i] == 1) == (b[i] == 1);
  return same / static_cast<double>(a.size());
}

// A step of half the distance of bf16 numbers moves one weight of two, by its random bits.
TEST(StochasticRounding, EachTensorAndStepHasItsOwnBits) {
  run_ranks(kAlone, [&](const Ranks& ranks) {
    RankTraining rank(ranks, bf16_types(false, DType::kF32), 0);
    std::vector<std::vector<double>> moves;
    for (int64_t step = 1; step <= 3; ++step) {
      for (int p = 0; p < 4; ++p) rank.reset(p);
      rank.step(step, kBf16Step / 2);
      const Tensors weights = rank.result().weights;
      for (const char* name : {"q", "k", "expert 0", "expert 1"}) moves.push_back(weights.at(name));
    }
    const double tolerance = 5 * 0.5 / std::sqrt(kRows * kWidth);
    for (size_t a = 0; a < moves.size(); ++a) {
      EXPECT_NEAR(Statistics(moves[a]).moved, 0.5, tolerance);
      for (size_t b = 0; b < a; ++b) EXPECT_NEAR(agreement(moves[a], moves[b]), 0.5, tolerance) << a << ", " << b;
    }
  });
}

}  // namespace
}  // namespace mixtune
