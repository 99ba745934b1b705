// A test program that is started as one of the ranks of a job: the program itself as rank of a supervisor.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <optional>

#include "job/job.h"

namespace mixtune {

class RankOfJob : public testing::Environment {
 public:
  static RankOfJob* instance() {
    static RankOfJob* const environment = new RankOfJob;  // GoogleTest deletes it
    return environment;
  }
  const Ranks& ranks() const { return ranks_ ? *ranks_ : single_rank(); }

  // Experts are spread over all ranks, each with a GPU of its own.
  void SetUp() override {
    const auto launch = start_from([](const char* name) { return std::getenv(name); }).rank;
    if (!launch) return;
    job_ = std::make_unique<Job>(JobOptions{.launch = *launch,
                                            .token = std::getenv("MIXTUNE_TOKEN"),
                                            .timeout = std::chrono::seconds(120),
                                            .on_failure = [](const Failure& failure) {
                                              std::_Exit(failure.exit_code);
                                            }});
    ranks_ = job_->connect({DeviceType::kCuda, launch->local_rank},
                           {.world = launch->size, .rank = launch->rank, .expert_parallel = launch->size});
  }
  void TearDown() override {
    ranks_.reset();
    job_.reset();
  }

 private:
  std::unique_ptr<Job> job_;
  std::optional<Ranks> ranks_;
};

inline testing::Environment* const kRankOfJob = testing::AddGlobalTestEnvironment(RankOfJob::instance());

// Of one, where the program was started alone.
inline const Ranks& rank_of_job() {
  return RankOfJob::instance()->ranks();
}

}  // namespace mixtune
