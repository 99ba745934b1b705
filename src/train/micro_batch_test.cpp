// Micro-batches that are alive at once, a later stage of a pipeline, and the parts of a step that a profile shows.
#include "train/micro_batch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "tensor/profiler.h"
#include "train/testing.h"

namespace mixtune {
namespace {

const LossScales kScales = {.token_scale = 0.1, .router = {RouterLossType::kHuggingface, 0.02}};
constexpr size_t kStackBytes = size_t{16} << 20;

TestModel model_with(Recompute recompute) {
  return TestModel(testing_config(), InstanceOptions{.recompute = recompute});
}

void expect_same(const Tensor& actual, const Tensor& expected, const std::string& what) {
  ASSERT_EQ(actual.bytes(), expected.bytes()) << what;
  EXPECT_EQ(std::memcmp(actual.data, expected.data, expected.bytes()), 0) << what;
}

// A ctx that runs on a stack of its own.
struct OwnStack {
  Stack stack{"a micro-batch", {}, kStackBytes};
  Ctx ctx{{}, stack, stack};
};

class MicroBatches : public testing::TestWithParam<Recompute> {};

// The oldest goes backward first, as in a pipeline of stages.
TEST_P(MicroBatches, AliveAtOnceOnStacksOfTheirOwnAddUpAsOneAfterTheOther) {
  const TestData first(testing_config().vocab_size, {9, 23, 70}), second(testing_config().vocab_size, {130, 5});
  const std::vector<Batch> batches = {first.batch(), second.batch()};
  TestModel in_turn = model_with(GetParam()), at_once = model_with(GetParam());
  double losses_in_turn[kLosses] = {}, losses_at_once[kLosses] = {};
  Saved only = in_turn.model().make_saved();
  for (const Batch& batch : batches)
    forward_backward(in_turn.ctx(), in_turn.model(), batch, only, kScales, host_tensor(losses_in_turn, {kLosses}));

  const Mixtral& model = at_once.model();
  OwnStack stacks[2];
  Saved saved[2] = {model.make_saved(), model.make_saved()};
  std::vector<ForwardPass> passes;
  for (int i = 0; i < 2; ++i) passes.push_back(forward_pass(stacks[i].ctx, model, batches[i], saved[i], true));
  for (int i = 0; i < 2; ++i) {
    backward_pass(stacks[i].ctx, model, passes[i], saved[i], kScales, host_tensor(losses_at_once, {kLosses}));
    const size_t whole = stacks[i].stack.mark();
    stacks[i].stack.release(0);
    std::memset(stacks[i].stack.push("poison", {static_cast<int64_t>(whole)}, DType::kU8).data, 0xFF, whole);
  }

  EXPECT_EQ(at_once.ctx().stack.peak(), 0u);
  EXPECT_EQ(losses_at_once[0], losses_in_turn[0]);
  for (int64_t i = 1; i < kLosses; ++i) EXPECT_EQ(losses_at_once[i], losses_in_turn[i]);
  for (int p = 0; p < in_turn.state().size(); ++p)
    expect_same(at_once.state().gradients().finished(at_once.ctx(), p),
                in_turn.state().gradients().finished(in_turn.ctx(), p), in_turn.state().spec(p).name);
}

TEST_P(MicroBatches, HaveTheSameResultWhereTheirLayersAreWatched) {
  const TestData data(testing_config().vocab_size, {9, 23, 70});
  TestModel expected = model_with(GetParam()), watched = model_with(GetParam());
  Saved expected_saved = expected.model().make_saved(), saved = watched.model().make_saved();
  const MicroBatchLoss loss = run_micro_batch(expected.ctx(), expected.model(), data.batch(), expected_saved, kScales);

  std::vector<int64_t> forward, backward;
  LossScales scales = kScales;
  scales.before_backward = [&](int64_t layer, const Tensor& dh) {
    EXPECT_EQ(dh.shape, saved.layers[layer].input.shape);
    backward.push_back(layer);
  };
  const auto watch = [&](int64_t layer, const Tensor&) {
    forward.push_back(layer);
  };
  double losses[kLosses] = {};
  const ForwardPass pass = forward_pass(watched.ctx(), watched.model(), data.batch(), saved, true, watch);
  backward_pass(watched.ctx(), watched.model(), pass, saved, scales, host_tensor(losses, {kLosses}));
  EXPECT_EQ(forward, (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(backward, (std::vector<int64_t>{1, 0}));
  EXPECT_EQ(losses[0], loss.token_sum);
  EXPECT_EQ(0.02 * losses[loss_index(RouterLossType::kHuggingface)], loss.router);
  for (int p = 0; p < watched.state().size(); ++p)
    expect_same(watched.state().gradients().finished(watched.ctx(), p),
                expected.state().gradients().finished(expected.ctx(), p), watched.state().spec(p).name);
}

INSTANTIATE_TEST_SUITE_P(Recomputing, MicroBatches,
                         testing::Values(Recompute::kNone, Recompute::kSelective, Recompute::kFull),
                         [](const auto& test) {
                           return test.param == Recompute::kNone        ? "Nothing"
                                  : test.param == Recompute::kSelective ? "Selectively"
                                                                        : "Fully";
                         });

// Forward of the second of two layers where no token was embedded.
TEST(MicroBatch, ALaterStageBeginsABatchWithoutItsTokens) {
  const TestData data(testing_config().vocab_size, {9, 23, 70});
  const Batch batch = data.batch();
  TestModel whole = model_with(Recompute::kNone);
  const Mixtral& model = whole.model();
  Saved all = model.make_saved();
  const Tensor expected = forward_pass(whole.ctx(), model, batch, all, true).h;

  OwnStack early, late;
  Saved early_saved = model.make_saved(), late_saved = model.make_saved();
  model.begin_batch(early.ctx, batch, early_saved);
  model.begin_batch(late.ctx, batch, late_saved);
  const Tensor h = model.layers(early.ctx, batch, {0, 1}, model.embed(early.ctx, batch), early_saved, true);
  const Tensor actual = model.layers(late.ctx, batch, {1, 2}, h, late_saved, true);
  expect_same(actual, expected, "output");
  expect_same(early_saved.router_stats.row(0), all.router_stats.row(0), "statistics of the first layer");
  expect_same(late_saved.router_stats.row(1), all.router_stats.row(1), "statistics of the second layer");
}

TEST(MicroBatch, WhatIsDoneBetweenLayersIsInItsResult) {
  const TestData data(testing_config().vocab_size, {9, 23, 70});
  TestModel test = model_with(Recompute::kNone);
  Saved saved = test.model().make_saved();
  const auto forget = [&](int64_t layer, const Tensor& h) {
    if (layer == 2) zero(test.ctx(), h);  // all logits are 0
  };
  LossScales scales = kScales;
  scales.router = {RouterLossType::kHuggingface, 0};
  scales.before_backward = [&](int64_t layer, const Tensor& dh) {
    if (layer == 0) zero(test.ctx(), dh);
  };
  double losses[kLosses] = {};
  const ForwardPass pass = forward_pass(test.ctx(), test.model(), data.batch(), saved, true, forget);
  backward_pass(test.ctx(), test.model(), pass, saved, scales, host_tensor(losses, {kLosses}));
  EXPECT_NEAR(losses[0], data.batch().target_tokens() * std::log(testing_config().vocab_size), 1e-3);
  for (int p = 0; p < test.state().size(); ++p) {
    const Tensor gradient = test.state().gradients().finished(test.ctx(), p);
    const std::span values(gradient.as<float>(), static_cast<size_t>(gradient.elements()));
    const bool is_zero = std::ranges::count(values, 0.0F) == gradient.elements();
    const int64_t layer = test.state().spec(p).place.layer;
    if (layer == 2) continue;  // the head
    EXPECT_EQ(is_zero, layer < 1) << test.state().spec(p).name;
  }
}

TEST(MicroBatch, ItsPartsHaveNamesAndNoneLiesInAnotherOfItsName) {
  const TestData data(testing_config().vocab_size, {9, 23, 70});
  TestModel test = model_with(Recompute::kNone);
  Profiler profiler(test.ctx());
  test.ctx().profiler = &profiler;
  profiler.start();
  Saved saved = test.model().make_saved();
  run_micro_batch(test.ctx(), test.model(), data.batch(), saved, kScales);
  test.ctx().profiler = nullptr;

  std::set<std::string> names;
  std::vector<std::string> open;
  for (const Profiler::Part& part : profiler.collect(test.ctx())) {
    open.resize(part.depth);
    EXPECT_EQ(std::ranges::count(open, part.name), 0) << part.name;
    open.push_back(part.name);
    names.insert(part.name);
  }
  for (const char* name :
       {"embedding", "norm", "qkv", "RoPE", "attention", "attention output", "router", "dispatch, plan", "dispatch",
        "gate-up", "SwiGLU", "down", "combine", "LM head", "cross-entropy"})
    EXPECT_TRUE(names.contains(name)) << name;
  for (const char* name :
       {"embedding", "norm", "qkv", "attention", "attention output", "router", "dispatch", "SwiGLU", "LM head"})
    EXPECT_TRUE(names.contains(std::string(name) + ", backward")) << name;
}

}  // namespace
}  // namespace mixtune
