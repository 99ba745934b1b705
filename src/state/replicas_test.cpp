// When a State of several ranks moves what, seen by a communicator that writes it down.
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

ParamSpec spec(const std::string& name, int64_t elements, bool of_experts, int bucket) {
  const Shape shape = {elements};
  return {.name = name,
          .shape = shape,
          .slices = {{.name = name, .shape = shape, .rows = elements}},
          .of_experts = of_experts,
          .bucket = bucket};
}

// An embedding, two layers of a dense and an expert's parameter, a head: each a bucket, of 512 to 3072 elements.
std::vector<ParamSpec> specs() {
  return {spec("embedding", 512, false, 0), spec("dense 0", 1024, false, 1),  spec("experts 0", 1536, true, 2),
          spec("dense 1", 2048, false, 3),  spec("experts 1", 2560, true, 4), spec("head", 3072, false, 5)};
}

class ReplicasTest : public testing::Test {
 protected:
  std::vector<std::string> take() { return std::exchange(log_, {}); }

  std::vector<std::string> log_;
  Recorder dense_{"dense", log_}, experts_{"experts", log_};
  Stack stack_{"test", {}, 1 << 20};
  Ctx ctx_{{}, stack_, stack_};
  const StateTypes types_ = {.weights = DType::kBF16, .masters = true};
  State state_{specs(), {}, types_, State::Purpose::kTraining, {&dense_, &experts_, true}};
};

TEST_F(ReplicasTest, WeightsAreGatheredALayerAhead) {
  state_.get(ctx_, 0);
  EXPECT_THAT(take(), IsEmpty());  // nothing was updated
  state_.gather_weights();
  EXPECT_THAT(take(), IsEmpty());
  state_.get(ctx_, 0);
  EXPECT_THAT(take(), ElementsAre("all-gather dense 512", "all-gather dense 1024", "all-gather experts 1536"));
  state_.get(ctx_, 1);
  EXPECT_THAT(take(), ElementsAre("all-gather dense 2048"));
  state_.get(ctx_, 1);
  state_.get(ctx_, 0);
  EXPECT_THAT(take(), IsEmpty());
  state_.await_weights(ctx_);
  EXPECT_THAT(take(), ElementsAre("all-gather experts 2560", "all-gather dense 3072"));
  state_.get(ctx_, 5);
  EXPECT_THAT(take(), IsEmpty());
}

TEST_F(ReplicasTest, GradientsAreSummedInTheLastMicroBatchAsTheyAreComplete) {
  state_.begin_step();
  state_.complete_from(ctx_, 0);
  EXPECT_THAT(take(), IsEmpty());
  state_.begin_last_micro_batch();
  state_.complete_from(ctx_, 5);
  EXPECT_THAT(take(), ElementsAre("reduce-scatter dense 3072"));
  state_.complete_from(ctx_, 3);
  EXPECT_THAT(take(), ElementsAre("reduce-scatter experts 2560", "reduce-scatter dense 2048"));
  state_.reduce_gradients(ctx_);
  EXPECT_THAT(take(),
              ElementsAre("reduce-scatter experts 1536", "reduce-scatter dense 1024", "reduce-scatter dense 512"));
  state_.reduce_gradients(ctx_);
  EXPECT_THAT(take(), IsEmpty());
}

TEST_F(ReplicasTest, HoldersTakeTurnsInSavingAndGatherMastersForIt) {
  std::vector<bool> saves;
  for (int p = 0; p < state_.size(); ++p) saves.push_back(state_.saves(p));
  EXPECT_THAT(saves, ElementsAre(true, false, true, true, false, false));
  EXPECT_EQ(state_.stack_bytes_to_save(), 4u * (512 + 1536 + 2048) + 4u * 3072);
  {
    const Stack::Frame frame(stack_);
    const std::vector<Tensor> tensors = state_.to_save(ctx_, true);
    for (int p = 0; p < state_.size(); ++p) EXPECT_EQ(static_cast<bool>(tensors[p]), saves[p]) << p;
    EXPECT_EQ(tensors[3].dtype, DType::kF32);
    EXPECT_EQ(tensors[3].elements(), 2048);
    EXPECT_EQ(take().size(), 6u);
    EXPECT_LE(stack_.peak(), state_.stack_bytes_to_save());
  }
  EXPECT_EQ(state_.to_save(ctx_, false)[3].dtype, DType::kBF16);
  EXPECT_THAT(take(), IsEmpty());
}

}  // namespace
}  // namespace mixtune
