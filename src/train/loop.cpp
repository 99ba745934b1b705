#include "train/loop.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>

#include "base/duration.h"
#include "base/log.h"
#include "run/requests.h"
#include "train/memory_savings.h"
#include "train/trainer.h"

namespace mixtune {

namespace {

constexpr double kSlowDisk = 500e6;   // bytes a second of each rank: what is trusted until a save was seen
constexpr int64_t kProfiledStep = 5;  // of the process: by then everything has been done once

// What this process asks of all ranks: each has its signals, rank 0 the clock and the file SAVE.
class Requests {
 public:
  Requests(const Config& config, Trainer& trainer, Deadline::Clock::time_point began)
      : trainer_(trainer),
        deadline_(
            config.output.time_limit.empty() ? std::nullopt : std::optional(parse_duration(config.output.time_limit)),
            began, static_cast<double>(trainer.instance().state().bytes()) / kSlowDisk),
        minutes_(config.output.save_every_minutes) {
    trainer.set_asked([this] {
      if (why_.empty()) why_ = why_to_stop();
      return StepRunner::Requests{.stop = !why_.empty(), .save = trainer_.leads() && save_is_wanted()};
    });
  }
  ~Requests() { trainer_.set_asked({}); }
  Requests(const Requests&) = delete;
  Requests& operator=(const Requests&) = delete;

  const std::string& why() const { return why_; }  // this process asked to stop; "": it did not
  void took_step(double seconds) { deadline_.took_step(seconds); }
  void begins_to_save() { last_save_ = Steady::now(); }

 private:
  using Steady = std::chrono::steady_clock;

  std::string why_to_stop() {
    if (const std::string signal = StopSignals::name(); !signal.empty()) return signal;
    if (!trainer_.leads()) return "";
    if (const double save = trainer_.last_save(); save > 0) deadline_.took_save(save);
    const int saves = trainer_.is_saving() ? 2 : 1;
    return deadline_.is_near(Deadline::Clock::now(), saves) ? "the end of its time" : "";
  }
  bool save_is_wanted() const {
    if (trainer_.save_wanted()) return true;
    return minutes_ > 0 && std::chrono::duration<double>(Steady::now() - last_save_).count() >= 60 * minutes_;
  }

  Trainer& trainer_;
  StopSignals signals_;
  Deadline deadline_;
  const double minutes_;
  Steady::time_point last_save_ = Steady::now();
  std::string why_;
};

// Returns whether the run was stopped before its last step.
bool run_steps(Trainer& trainer, Requests& requests, int64_t profiled) {
  if (trainer.evaluation_due(0)) trainer.evaluate(0);
  for (int64_t step = trainer.first_step(), last = trainer.total_steps(); step <= last; ++step) {
    const auto start = std::chrono::steady_clock::now();
    trainer.report(step == profiled ? trainer.profiled_step(step) : trainer.step(step));
    if (trainer.evaluation_due(step)) trainer.evaluate(step);
    requests.took_step(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    if (trainer.requests().settled) trainer.end_save();
    const bool ends = trainer.ended_early() && step < last, stops = trainer.requests().stop && step < last && !ends;
    if (trainer.save_due(step) || stops) {
      requests.begins_to_save();
      trainer.save(step);
    }
    if (ends) {
      trainer.say_ended_early(step);
      return false;
    }
    if (!stops) continue;
    if (trainer.leads())
      log_info("stopped after step {} by {}; --resume_from_checkpoint auto goes on", step,
               requests.why().empty() ? "a signal to another rank" : requests.why());
    return true;
  }
  return false;
}

}  // namespace

bool train(const Config& config, bool profile, const Ranks& ranks) try {
  const Deadline::Clock::time_point began = Deadline::Clock::now();
  Trainer trainer(config, ranks);
  const int64_t first = trainer.first_step(), last = trainer.total_steps();
  if (trainer.is_done()) {
    trainer.close();
    return false;
  }
  trainer.open_output();
  try {
    Requests requests(config, trainer, began);  // until the last checkpoint is written: a signal must not end that
    const bool stopped = run_steps(trainer, requests, profile ? std::min(first + kProfiledStep - 1, last) : 0);
    trainer.finish();
    return stopped;
  } catch (const UserError& error) {
    throw Error("", error.what(), "");  // found after the first step: no longer what exit code 2 means
  }
} catch (const OutOfMemory& error) {
  throw Error("", error.what(),
              memory_advice(config, ranks.grid.world, device_of(config, ranks).type == DeviceType::kCuda, error.part()),
              error.exit_code());
}

}  // namespace mixtune
