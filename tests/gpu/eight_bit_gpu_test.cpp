// Training with products in 8 bits on a GPU. Products of codes have the operands of the definition (operands rounded,
// multiplied in bf16), bit for bit, but sums add in another order; and what is beside them is bf16, on the CPU fp32.
#include <cstdio>

#include "gpu/training.h"
#include "sameness.h"
#include "tensor/gpu_test.h"

namespace mixtune {
namespace {

constexpr int64_t kSteps = 5, kLongest = 512, kRows = 2;

// Every token goes to all experts: no rounding sends one elsewhere, after which little could be compared.
MixtralConfig calm_config() {
  MixtralConfig config = middle_size_config();
  config.num_local_experts = config.num_experts_per_tok = 2;
  return config;
}

struct Trained {
  std::vector<Training::Numbers> steps;
  std::unique_ptr<HostCopies> gradients;  // of the first step
};

Trained train(InstanceOptions options, const RecipeOptions& recipe) {
  const MixtralConfig config = calm_config();
  options.recipe = recipe;
  Training training(config, options);
  const MemoryDocuments documents = random_documents(200, kLongest, config.vocab_size, 5);
  Loader loader(documents, {.max_seq_length = kLongest, .packing = true, .shuffle = true}, kRows, 1,
                training.instance().host_memory());
  warm_up(training.instance(), limits_of(loader, kLongest));
  Trained result;
  for (int64_t i = 0; i < kSteps; ++i) {
    if (i == 0) {
      training.gradients(loader.load(i));
      result.gradients = std::make_unique<HostCopies>(training.ctx(), training.state(), [&](int p) {
        return training.state().gradients().finished(training.ctx(), p);
      });
    }
    result.steps.push_back(training.step(loader.load(i)));
  }
  return result;
}

struct Distance {
  double first_loss = 0, loss = 0, norm = 0, gradients = 0, worst_gradient = 0;
};

// Of two trainings, relative; `gradients` over all tensors together, which differ by what rounds the other way.
Distance distance(const Trained& a, const Trained& b) {
  Distance d;
  for (size_t i = 0; i < b.steps.size(); ++i) {
    const double loss = std::abs(a.steps[i].loss / b.steps[i].loss - 1);
    if (i == 0) d.first_loss = loss;
    d.loss = std::max(d.loss, loss);
    d.norm = std::max(d.norm, std::abs(a.steps[i].grad_norm / b.steps[i].grad_norm - 1));
  }
  NormError all;
  const auto layout = make_layout(calm_config());
  for (int p = 0; p < static_cast<int>(layout.specs.size()); ++p) {
    NormError one;
    one.add((*a.gradients)[p], (*b.gradients)[p]);
    all.add((*a.gradients)[p], (*b.gradients)[p]);
    d.worst_gradient = std::max(d.worst_gradient, one.relative());
  }
  d.gradients = all.relative();
  return d;
}

Distance told(const char* what, const Distance& d) {
  std::printf("%-34s first loss %.1e  losses %.1e  norms %.1e  gradients %.1e  worst of a tensor %.1e\n", what,
              d.first_loss, d.loss, d.norm, d.gradients, d.worst_gradient);
  return d;
}

class EightBitGpu : public GpuTest {
 protected:
  static RecipeOptions fp8(bool codes, bool power_of_two = true) {
    return {.eight_bit = EightBitScaling::kBlock, .power_of_two_scales = power_of_two, .multiplies_codes = codes};
  }
  static void expect_near(const char* what, const Trained& a, const Trained& b, const Distance& bounds) {
    const Distance d = told(what, distance(a, b));
    EXPECT_LT(d.first_loss, bounds.first_loss) << what;
    EXPECT_LT(d.loss, bounds.loss) << what;
    EXPECT_LT(d.norm, bounds.norm) << what;
    EXPECT_LT(d.gradients, bounds.gradients) << what;
    EXPECT_LT(d.worst_gradient, bounds.worst_gradient) << what;
  }
};

constexpr Distance kNear = {.first_loss = 1e-3, .loss = 5e-3, .norm = 2e-2, .gradients = 5e-2, .worst_gradient = 0.2};

TEST_F(EightBitGpu, CodesTrainAsRoundedOperandsDo) {
  const Trained bf16 = train(bf16_on_gpu(), {}), rounded = train(bf16_on_gpu(), fp8(false)),
                codes = train(bf16_on_gpu(), fp8(true)), any_scale = train(bf16_on_gpu(), fp8(true, false));
  expect_near("codes, rounded", codes, rounded, kNear);
  told("bf16, rounded (not near)", distance(bf16, rounded));
  told("fp32 scales, powers of two", distance(any_scale, codes));
  EXPECT_GT(distance(bf16, rounded).gradients, 1.5e-2) << "nothing was in 8 bits";
}

TEST_F(EightBitGpu, TrainsAsTheCpuDoes) {
  expect_near("fp8, CPU", train(bf16_on_gpu(), fp8(true)), train(fp32_on({}), fp8(false)), kNear);
  for (const EightBitScaling scaling : {EightBitScaling::kMx, EightBitScaling::kTensor})
    expect_near(scaling == EightBitScaling::kMx ? "mxfp8, CPU" : "fp8 by tensor, CPU",
                train(bf16_on_gpu(), {.eight_bit = scaling}), train(fp32_on({}), {.eight_bit = scaling}), kNear);
  told("bf16, CPU fp32", distance(train(bf16_on_gpu(), {}), train(fp32_on({}), {})));
}

TEST_F(EightBitGpu, LoopGivesTheSameNumbers) {
  RecipeOptions loop = fp8(true);
  loop.experts = ExpertsImplementation::kLoop;
  expect_near("loop, grouped", train(bf16_on_gpu(), loop), train(bf16_on_gpu(), fp8(true)), kNear);
}

}  // namespace
}  // namespace mixtune
