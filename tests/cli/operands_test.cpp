// What runs in 8 bits record of their operands.
#include <cmath>

#include "rank_runs.h"
#include "stored_weights.h"

namespace mixtune {
namespace {

class Operands : public RankRuns {
 protected:
  static Args in(const std::string& precision, const Args& more) {
    Args args = train("out-" + precision, {"--precision=" + precision, "--max_steps=11"});
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }

  std::vector<nlohmann::json> steps(const std::string& out) const {
    std::vector<nlohmann::json> steps = metrics(out);
    std::erase_if(steps, [](const nlohmann::json& record) { return record.contains("eval_loss"); });
    return steps;
  }

  // Every second value of o_proj becomes so small that 8 bits have it as 0.
  void widen_output_projection() const {
    constexpr size_t kElements = kHidden * kHidden;
    const StoredPlace place = find_entry(path("model"), "model.layers.0.self_attn.o_proj.weight");
    std::string bytes = read(place.file);
    for (size_t i = 0; i < kElements; i += 2) {
      char* at = bytes.data() + place.last - (kElements - 1 - i) * sizeof(float);
      float value = 0;
      std::memcpy(&value, at, sizeof(value));
      value = std::ldexp(value, -30);
      std::memcpy(at, &value, sizeof(value));
    }
    write(place.file, bytes);
  }

  // What may be flushed. Gradients of queries and keys are far smaller than those of values, before attention has
  // learnt anything, and in this small model share blocks with them.
  static double most_flushed(const std::string& operand) {
    return operand == "attention_output_weight" ? 0.5 : operand == "qkv_gradient" ? 0.25 : 0.01;
  }

  static void expect_sane(const nlohmann::json& record) {
    for (const char* product : {"qkv", "attention_output", "gate_up", "down"})
      for (const char* role : {"input", "weight", "gradient"}) {
        const std::string operand = fmt::format("{}_{}", product, role);
        SCOPED_TRACE(operand);
        EXPECT_EQ(record["saturated_" + operand], 0);
        EXPECT_LE(record["flushed_" + operand], most_flushed(operand));
        ASSERT_EQ(record["amax_" + operand].size(), 1u);
        EXPECT_GT(record["amax_" + operand][0], 0);
      }
    EXPECT_GT(record["flushed_attention_output_weight"], 0.4);
  }
};

TEST_F(Operands, AreRecordedInTheFirstStepAndEveryTenthAlikeOnTwoRanks) {
  if (on_gpus()) GTEST_SKIP() << "bits are the CPU's";
  widen_output_projection();
  for (const std::string precision : {"fp8", "mxfp8"}) {
    SCOPED_TRACE(precision);
    const Outcome one = done(in(precision, {"--per_device_train_batch_size=2"}));
    EXPECT_EQ(count_of(one.err, "warning: step 1: flushed_attention_output_weight 0.5 is over 0.01"), 1) << one.err;
    EXPECT_EQ(count_of(one.err, "is over 0.01"), 1) << one.err;
    const std::vector<nlohmann::json> alone = steps("out-" + precision);
    done(in(precision, {"--per_device_train_batch_size=1", "--nproc=2", "--expert_model_parallel_size=2",
                        "--overwrite_output_dir"}));
    const std::vector<nlohmann::json> both = steps("out-" + precision);
    ASSERT_EQ(alone.size(), 11u);
    ASSERT_EQ(both.size(), 11u);
    for (const auto* run : {&alone, &both})
      for (const nlohmann::json& record : *run)
        EXPECT_EQ(record.contains("amax_down_input"), record["step"] == 1 || record["step"] == 10) << record["step"];
    expect_sane(alone[0]);
    expect_sane(both[0]);
    for (const char* weight : {"qkv_weight", "attention_output_weight", "gate_up_weight", "down_weight"})
      for (const char* number : {"flushed_", "saturated_", "amax_"})
        EXPECT_EQ(alone[0][std::string(number) + weight], both[0][std::string(number) + weight]) << number << weight;
    for (const char* operand : {"qkv_input", "gate_up_input", "down_input", "down_gradient"}) {
      const double a = alone[0][std::string("amax_") + operand][0], b = both[0][std::string("amax_") + operand][0];
      EXPECT_NEAR(a, b, 1e-4 * b) << operand;
    }
  }
}

TEST_F(Operands, AreOf8BitsAlone) {
  done(train("out", {"--max_steps=1"}));
  const nlohmann::json step = steps("out").at(0);
  for (const auto& [name, value] : step.items())
    for (const char* number : {"flushed_", "saturated_", "amax_"}) EXPECT_FALSE(name.starts_with(number)) << name;
}

}  // namespace
}  // namespace mixtune
