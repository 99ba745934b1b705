#include "bench/load.h"

#include <fmt/format.h>

#include <fstream>

#include "base/log.h"
#include "checkpoint/load.h"
#include "train/instance_options.h"

namespace mixtune {

namespace {

constexpr size_t kScratchBytes = size_t{64} << 20;  // load_weights takes it for a cast

// The most that this process has ever had in memory at once; 0 where the system does not say.
size_t peak_host_memory() {
  std::ifstream status("/proc/self/status");
  std::string key;
  size_t kib = 0;
  while (status >> key) {
    if (key == "VmHWM:" && status >> kib) return kib * 1024;
    std::getline(status, key);
  }
  return 0;
}

}  // namespace

std::string bench_load(const std::string& folder, const InstanceOptions& options) {
  const HfFolder weights(folder);
  InstanceOptions inference = options;
  inference.purpose = State::Purpose::kInference;
  inference.stack_bytes = kScratchBytes;
  Instance instance(load_mixtral_config(folder), inference);
  const size_t before = peak_host_memory();
  const LoadReport report = load_weights(instance.ctx(), weights, instance.state());
  return fmt::format("{}: {}\npeak host memory {}, {} before; weights {}\n", describe(inference), report.str(),
                     format_bytes(peak_host_memory()), format_bytes(before), format_bytes(instance.state().bytes()));
}

}  // namespace mixtune
