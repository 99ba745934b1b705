// CoordinatorClient: a rank's connection to its job's Coordinator: values for the other ranks, and heartbeats.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/file.h"
#include "job/rank_watch.h"
#include "parallel/rank_progress.h"
#include "parallel/store.h"

namespace mixtune {

enum class Purpose : int64_t;  // handshake.h

struct CoordinatorClientOptions {
  std::string host;
  int port = 0;
  int rank = 0, size = 1;
  std::string token;                          // of the job: each proves to the other that it knows it
  std::chrono::milliseconds timeout{30000};   // of joining, of get, and of each answer
  std::chrono::milliseconds patience{30000};  // after which a warning says why it has not joined
  // Called once, from another thread, when the job has failed or the coordinator is gone; most end the process in it.
  // Not called for this rank's own fail().
  std::function<void(const Failure&)> on_failure;
};

class CoordinatorClient : public Store, public RankProgress {
 public:
  // Joins. Tries until the coordinator is there or the timeout is over; throws Error where it is not, or is another's.
  explicit CoordinatorClient(CoordinatorClientOptions options);
  // Says goodbye, unless an exception is what ends it.
  ~CoordinatorClient() override;

  void set(const std::string& key, const std::string& value) override;
  std::string get(int rank, const std::string& key) override;

  // The address of this machine from which this rank reaches the coordinator, as a number.
  std::string own_address() const;
  // Whether a rank that this one may be waiting for is at work on something long, as far as the last heartbeat tells:
  // then whoever waits is to go on waiting.
  bool waits_for_work() const { return waits_for_work_; }

  // For the heartbeats; cheap. Names are cut to what a message has room for.
  void set_step(int64_t step) override;
  void set_activity(const char* activity) override;
  void advance() override;
  void enter(const char* collective) override;
  void leave() override;

  // Tells that this rank has failed, and returns why the job has: that, or what came before it. One rank's line is
  // enough to print: what this returns. exit_code is not 0.
  Failure fail(const std::string& message, int exit_code);
  // This rank is done; the others go on. The job may still fail before all have said so.
  void goodbye();

 private:
  enum class Wish { kBeat, kReport, kGoodbye, kStop };

  Fd join(Purpose purpose, std::chrono::steady_clock::time_point deadline) const;
  std::string shake_hands(const Fd& socket, Purpose purpose, std::chrono::steady_clock::time_point deadline) const;
  std::string ask(const std::string& frame, std::chrono::milliseconds patience);
  void beat();
  Wish next_wish();
  std::optional<Failure> send(Wish wish);
  std::string frame_of(Wish wish);
  Failure gone(Wish wish, const char* why);
  void end(Wish wish, const std::optional<Failure>& failure);
  std::string address() const;

  const CoordinatorClientOptions options_;
  const int exceptions_;
  Fd values_, heartbeats_;
  std::mutex values_mutex_;
  std::atomic<bool> waits_for_work_ = false;

  std::mutex mutex_;  // of all that follows
  std::condition_variable changed_;
  Wish wish_ = Wish::kBeat;
  bool ended_ = false;              // no further heartbeat
  std::optional<Failure> failure_;  // why
  Failure report_;
  Beat now_;
  std::string activity_;  // outside of collectives
  std::thread thread_;
};

}  // namespace mixtune
