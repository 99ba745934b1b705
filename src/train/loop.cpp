#include "train/loop.h"

#include <algorithm>

#include "train/memory_savings.h"
#include "train/trainer.h"

namespace mixtune {

namespace {

constexpr int64_t kProfiledStep = 5;  // of the process: by then everything has been done once

}  // namespace

void train(const Config& config, bool profile, const Ranks& ranks) try {
  Trainer trainer(config, ranks);
  const int64_t first = trainer.first_step(), last = trainer.total_steps();
  if (first > last) return trainer.close();
  const int64_t profiled = profile ? std::min(first + kProfiledStep - 1, last) : 0;
  trainer.open_output();
  try {
    for (int64_t step = first; step <= last; ++step) {
      trainer.report(step == profiled ? trainer.profiled_step(step) : trainer.step(step));
      if (trainer.evaluation_due(step)) trainer.report(trainer.evaluate(step));
      if (trainer.save_due(step)) trainer.save(step);
    }
    trainer.finish();
  } catch (const UserError& error) {
    throw Error("", error.what(), "");  // found after the first step: no longer what exit code 2 means
  }
} catch (const OutOfMemory& error) {
  throw Error("", error.what(),
              memory_advice(config, ranks.grid.world, device_of(config, ranks).type == DeviceType::kCuda, error.part()),
              error.exit_code());
}

}  // namespace mixtune
