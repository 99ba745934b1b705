// faulty_rank KIND PLACE VICTIM: one rank of a short training, as fault_test starts them. Rank VICTIM fails at PLACE of
// step 2 (or while it loads): it throws, is killed, stops, or hangs, which its heartbeats do not show. Or it works for
// longer than any timeout, and goes on.
#include <fmt/format.h>
#include <omp.h>

#include <csignal>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>

#include "job/job.h"
#include "short_training.h"

namespace mixtune {
namespace {

constexpr int64_t kStep = 2;

// Tells the job where this rank is, and makes it fail there.
class Fault : public RankProgress {
 public:
  Fault(RankProgress& inner, std::string kind, std::string place, std::chrono::milliseconds timeout)
      : inner_(inner), kind_(std::move(kind)), place_(std::move(place)), timeout_(timeout) {}

  void set_step(int64_t step) override { inner_.set_step(step_ = step); }
  void set_activity(const char* activity) override {
    inner_.set_activity(activity);
    if (place_ == activity && (step_ == kStep || place_ == "loading")) fail();
  }
  void advance() override { inner_.advance(); }
  void enter(const char* collective) override { inner_.enter(collective); }
  void leave() override { inner_.leave(); }

 private:
  void fail() {
    std::this_thread::sleep_for(std::chrono::milliseconds(500));  // its heartbeats tell where it is
    if (kind_ == "throw") throw Error("made-up fault", "thrown on purpose", "");
    if (kind_ == "work") return work();
    while (kind_ == "hang") std::this_thread::sleep_for(std::chrono::hours(1));
    std::raise(kind_ == "kill" ? SIGKILL : SIGSTOP);
  }

  // Works for longer than the timeout, and than what communicators add to it.
  void work() {
    const auto end = std::chrono::steady_clock::now() + timeout_ + std::chrono::seconds(6);
    for (; std::chrono::steady_clock::now() < end; std::this_thread::sleep_for(std::chrono::milliseconds(100)))
      inner_.advance();
    place_ = "";  // fails once
  }

  RankProgress& inner_;
  std::string kind_, place_;
  std::chrono::milliseconds timeout_;
  int64_t step_ = 0;
};

int run_rank(const std::string& kind, const std::string& place, int victim) {
  omp_set_num_threads(1);
  std::signal(SIGPIPE, SIG_IGN);  // as the program does
  const Launch launch = *start_from([](const char* name) { return std::getenv(name); }).rank;
  const char* test_device = std::getenv("MIXTUNE_TEST_DEVICE");
  const bool on_gpus = test_device != nullptr && std::string_view(test_device) == "cuda";
  const Device device = on_gpus ? Device{DeviceType::kCuda, launch.local_rank} : Device{};
  const ShortTraining run = {
      .layout = {false, 8 / launch.size, 1}, .router = {RouterLossType::kHuggingface, 0.02}, .documents = 8};
  const std::chrono::milliseconds timeout(on_gpus ? 6000 : 1500);
  Job job({.launch = launch,
           .token = std::getenv("MIXTUNE_TOKEN"),
           .timeout = timeout,
           .on_failure = [](const Failure& failure) {
             std::_Exit(failure.exit_code);
           }});
  Fault fault(job.progress(), kind, place, timeout);
  std::optional<Ranks> ranks;  // the others are to hear of a failure before they lose their connections
  try {
    ranks = job.connect(device, {.world = launch.size, .rank = launch.rank, .expert_parallel = 2});
    if (launch.rank == victim) ranks->progress = &fault;
    ranks->set_activity("loading");
    run_training(run,
                 {.device = device, .gpu = {.patience = ranks->patience, .give_up = ranks->give_up}, .ranks = &*ranks});
    return 0;
  } catch (const std::exception& error) {
    return job.fail(error.what(), 1).exit_code;
  }
}

}  // namespace
}  // namespace mixtune

int main(int argc, char** argv) {
  return argc == 4 ? mixtune::run_rank(argv[1], argv[2], std::atoi(argv[3])) : 2;
}
