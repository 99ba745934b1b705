// When a State of several ranks moves what, as a communicator records it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "state/state.h"

namespace mixtune {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// Rank 0 of two.
class Recorder final : public Communicator {
 public:
  Recorder(std::string group, std::vector<std::string>& log)
      : Communicator(0, 2), group_(std::move(group)), log_(log) {}

  void exchange(Ctx&, const char*, std::span<const Message>, std::span<const Message>) override {}
  void all_reduce(Ctx&, const char*, const Tensor& x) override { add("all-reduce", x); }
  void reduce_scatter(Ctx&, const char*, const Tensor& x) override { add("reduce-scatter", x); }
  void all_gather(Ctx&, const char*, const Tensor& x) override { add("all-gather", x); }
  std::unique_ptr<Communicator> split(int) override { return nullptr; }

 private:
  void add(const std::string& operation, const Tensor& x) {
    log_.push_back(operation + " " + group_ + " " + std::to_string(x.elements()));
  }
  std::string group_;
  std::vector<std::string>& log_;
};

ParamSpec spec(const std::string& name, int64_t elements, bool of_experts, Place place) {
  const Shape shape = {elements};
  return {.name = name,
          .shape = shape,
          .blocks = {{.name = name, .box = Box(shape)}},
          .of_experts = of_experts,
          .place = place};
}

// An embedding, two layers of a dense and an expert's parameter, a head: each a bucket, of 512 to 3072 elements.
std::vector<ParamSpec> replicated_specs() {
  constexpr Place::Part kExperts = Place::kExperts;
  return {spec("embedding", 512, false, {.layer = -1}),
          spec("dense 0", 1024, false, {.layer = 0}),
          spec("experts 0", 1536, true, {.layer = 0, .part = kExperts}),
          spec("dense 1", 2048, false, {.layer = 1}),
          spec("experts 1", 2560, true, {.layer = 1, .part = kExperts}),
          spec("head", 3072, false, {.layer = 2})};
}

class ReplicasTest : public testing::Test {
 protected:
  std::vector<std::string> take() { return std::exchange(log_, {}); }

  std::vector<std::string> log_;
  Recorder dense_{"dense", log_}, experts_{"experts", log_};
  Stack stack_{"test", {}, 1 << 20};
  Ctx ctx_{{}, stack_, stack_};
  const StateTypes types_ = {.weights = DType::kBF16, .masters = true};
  State state_{replicated_specs(), {}, types_, State::Purpose::kTraining, {&dense_, &experts_, true}};
};

TEST_F(ReplicasTest, WeightsAreGatheredALayerAhead) {
  state_.get(ctx_, 0);
  EXPECT_THAT(take(), IsEmpty());  // nothing was updated
  state_.weight_sync().begin();
  EXPECT_THAT(take(), IsEmpty());
  state_.get(ctx_, 0);
  EXPECT_THAT(take(), ElementsAre("all-gather dense 512", "all-gather dense 1024", "all-gather experts 1536"));
  state_.get(ctx_, 1);
  EXPECT_THAT(take(), ElementsAre("all-gather dense 2048"));
  state_.get(ctx_, 1);
  state_.get(ctx_, 0);
  EXPECT_THAT(take(), IsEmpty());
  state_.weight_sync().await_all(ctx_);
  EXPECT_THAT(take(), ElementsAre("all-gather experts 2560", "all-gather dense 3072"));
  state_.get(ctx_, 5);
  EXPECT_THAT(take(), IsEmpty());
}

TEST_F(ReplicasTest, GradientsAreSummedInTheLastMicroBatchAsTheyAreComplete) {
  state_.gradients().begin_step();
  state_.gradients().complete_from(ctx_, {.layer = -1});
  EXPECT_THAT(take(), IsEmpty());
  state_.gradients().begin_last_micro_batch();
  state_.gradients().complete_from(ctx_, {.layer = 2});
  EXPECT_THAT(take(), ElementsAre("reduce-scatter dense 3072"));
  state_.gradients().complete_from(ctx_, {.layer = 1});
  EXPECT_THAT(take(), ElementsAre("reduce-scatter experts 2560", "reduce-scatter dense 2048"));
  state_.gradients().finish(ctx_);
  EXPECT_THAT(take(),
              ElementsAre("reduce-scatter experts 1536", "reduce-scatter dense 1024", "reduce-scatter dense 512"));
  EXPECT_THROW(state_.gradients().finish(ctx_), std::logic_error);  // once a step
}

TEST_F(ReplicasTest, AStageIsCompleteByItself) {
  std::vector<ParamSpec> two = replicated_specs();
  for (int p = 3; p < 6; ++p) two[p].place.stage = 1;
  State state(two, {}, types_, State::Purpose::kTraining, {&dense_, &experts_, true});
  state.gradients().begin_step();
  state.gradients().begin_last_micro_batch();
  state.gradients().complete_from(ctx_, {.stage = 0, .layer = 0});
  EXPECT_THAT(take(), ElementsAre("reduce-scatter experts 1536", "reduce-scatter dense 1024"));
  state.gradients().complete_from(ctx_, {.stage = 1, .layer = 1});
  EXPECT_THAT(take(),
              ElementsAre("reduce-scatter dense 3072", "reduce-scatter experts 2560", "reduce-scatter dense 2048"));
}

TEST_F(ReplicasTest, AStepHasAnOrder) {
  EXPECT_THROW(state_.gradients().begin_last_micro_batch(), std::logic_error);
  EXPECT_THROW(state_.gradients().finish(ctx_), std::logic_error);
}

TEST_F(ReplicasTest, HoldersTakeTurnsInSavingAndGatherMastersForIt) {
  std::vector<bool> saves;
  for (int p = 0; p < state_.size(); ++p) saves.push_back(state_.saves(p));
  EXPECT_THAT(saves, ElementsAre(true, false, true, true, false, false));
  // Rounds: up to the experts of layer 0; the rest, of which one is kept and one passes.
  EXPECT_EQ(state_.stack_bytes_to_save(), 4u * (2048 + 3072));
  std::vector<int> visited;
  std::vector<size_t> gathered;
  state_.for_each_saved(ctx_, true, [&](std::span<const State::Saved> params) {
    for (const auto& [param, values] : params) {
      visited.push_back(param);
      EXPECT_EQ(values.dtype, DType::kF32);
      EXPECT_EQ(values.elements(), state_.spec(param).shape.elements());
    }
    gathered.push_back(take().size());
  });
  EXPECT_THAT(visited, ElementsAre(0, 2, 3));
  EXPECT_THAT(gathered, ElementsAre(3, 3));
  EXPECT_LE(stack_.peak(), state_.stack_bytes_to_save());
  state_.for_each_saved(ctx_, false, [](std::span<const State::Saved> params) {
    for (const auto& [param, values] : params) EXPECT_EQ(values.dtype, DType::kBF16);
  });
  EXPECT_THAT(take(), IsEmpty());
}

}  // namespace
}  // namespace mixtune
