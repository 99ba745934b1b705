// mixtune_soak [--steps N]: trains a model of 115 million parameters in bf16 on packed and on single documents of all
// lengths. Ends with 1 where memory grew, a plan was built late, or a loss was not finite.
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <string_view>

#include "base/log.h"
#include "gpu/training.h"
#include "tensor/gpu_test.h"

namespace mixtune {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kLongest = 2048, kRows = 4, kMicroBatches = 2, kDocuments = 4000;
constexpr int64_t kReport = 100;  // steps between lines; after the first, memory is to stay as it is
constexpr int64_t kDefaultSteps = 2000;
// Limits for a whole run: the driver loads a kernel when it is first used, malloc keeps what it was given.
constexpr int64_t kDeviceGrowth = int64_t{16} << 20, kHostGrowth = int64_t{32} << 20;

MixtralConfig soak_config() {
  MixtralConfig config = middle_size_config();
  config.vocab_size = 8000;
  config.hidden_size = 512;
  config.intermediate_size = 1024;
  config.num_hidden_layers = 8;
  config.num_attention_heads = 8;
  config.num_key_value_heads = 4;
  config.initializer_range = 0.04;
  return config;
}

int64_t host_memory_in_use() {
  int64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

struct Memory {
  int64_t device_free = static_cast<int64_t>(gpu_info(kGpu.index).free_memory);
  int64_t host = host_memory_in_use();
};

// Whether the run may still end with 0; logs what is wrong.
bool is_healthy(const Memory& before, const Memory& now, int64_t plans) {
  bool healthy = true;
  const auto expect = [&](bool good, std::string_view what) {
    if (!good) fmt::print("FAILED: {}\n", what);
    healthy &= good;
  };
  expect(before.device_free - now.device_free <= kDeviceGrowth,
         fmt::format("the GPU's free memory fell from {} to {}", before.device_free, now.device_free));
  expect(now.host - before.host <= kHostGrowth,
         fmt::format("the host's memory in use grew from {} to {}", before.host, now.host));
  expect(plans == 0, fmt::format("{} plans were built after warm-up", plans));
  return healthy;
}

bool soak(int64_t steps) {
  const MixtralConfig config = soak_config();
  InstanceOptions options = bf16_on_gpu();
  options.stack_bytes = 0;
  Training training(config, options);
  const HostMemory host = training.instance().host_memory();
  const MemoryDocuments documents = random_documents(kDocuments, kLongest, config.vocab_size, 1);
  PlanOptions plan = {.max_seq_length = kLongest, .packing = true, .shuffle = true};
  Loader packed(documents, plan, kRows, kMicroBatches, host);
  plan.packing = false;  // T goes from 128 to the most
  Loader single(documents, plan, kRows, kMicroBatches, host);
  BatchLimits limits = limits_of(packed, kLongest);
  limits.tokens = std::max(limits.tokens, single.max_batch_tokens());
  warm_up(training.instance(), limits);
  fmt::print("{} parameters, {} documents, {} tokens; warm-up done\n", training.state().layout().elements(),
             documents.size(), documents.tokens());

  Memory settled;
  auto start = Clock::now();
  for (int64_t i = 1; i <= steps; ++i) {
    const Training::Numbers numbers = training.step((i % 2 ? packed : single).load(i / 2));
    if (!std::isfinite(numbers.loss) || !std::isfinite(numbers.grad_norm)) {
      fmt::print("FAILED: step {}: loss {}, gradient norm {}\n", i, numbers.loss, numbers.grad_norm);
      return false;
    }
    if (i % kReport != 0) continue;
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    const Memory now;
    if (i == kReport) settled = now;
    fmt::print("step {:6}  loss {:8.5f}  {:7.2f} ms/step  GPU free {}  host {}  late plans {}\n", i, numbers.loss,
               1e3 * seconds / kReport, format_bytes(now.device_free), format_bytes(now.host),
               late_plans(training.ctx()));
    std::fflush(stdout);
    start = Clock::now();
  }
  return is_healthy(settled, {}, late_plans(training.ctx()));
}

int run(int argc, char** argv) {
  int64_t steps = kDefaultSteps;
  if (argc == 3 && std::string_view(argv[1]) == "--steps") steps = std::atoll(argv[2]);
  if ((argc != 1 && argc != 3) || steps < 2 * kReport) {
    fmt::print(stderr, "usage: mixtune_soak [--steps N], N at least {}\n", 2 * kReport);
    return 2;
  }
  if (gpu_count() == 0) {
    fmt::print("skipped: no GPU\n");
    return required_gpus() > 0 ? 1 : 0;
  }
  const bool healthy = soak(steps);
  fmt::print("{}\n", healthy ? "healthy" : "NOT healthy");
  return healthy ? 0 : 1;
}

}  // namespace
}  // namespace mixtune

int main(int argc, char** argv) {
  try {
    return mixtune::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "mixtune_soak: {}\n", error.what());
    return 1;
  }
}
