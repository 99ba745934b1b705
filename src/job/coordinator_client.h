// CoordinatorClient: a rank's connection to its job's Coordinator, for values of other ranks and for heartbeats.
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
  std::chrono::milliseconds patience{30000};  // then a warning says why it has not joined
  // Called once, from another thread, when the job has failed or the coordinator is gone; usually it ends the process.
  // Not called for this rank's own fail().
  std::function<void(const Failure&)> on_failure;
};

class CoordinatorClient : public Store, public RankProgress {
 public:
  // Joins, trying until the timeout is over. Throws Error where no coordinator is there, or it is another job's.
  explicit CoordinatorClient(CoordinatorClientOptions options);
  // Says goodbye, unless an exception unwinds.
  ~CoordinatorClient() override;

  void set(const std::string& key, const std::string& value) override;
  std::string get(int rank, const std::string& key) override;

  // The address of this machine, as a number, from which this rank reaches the coordinator.
  std::string own_address() const;
  // Whether, by the last heartbeat, a rank that this one may be waiting for is at work on something long: then a wait
  // is to go on.
  bool waits_for_work() const { return waits_for_work_; }

  // What the next heartbeats say. The calls are cheap. Names are cut to what a message has room for.
  void set_step(int64_t step) override;
  void set_activity(const char* activity) override;
  void advance() override;
  void enter(const char* collective) override;
  void leave() override;

  // Tells that this rank has failed. Returns why the job has: this, or what came before it. To print that is enough for
  // one rank. exit_code is not 0.
  Failure fail(const std::string& message, int exit_code);
  // Says that this rank is done; the others go on. The job may still fail before all have said so.
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

  std::mutex mutex_;  // for all that follows
  std::condition_variable changed_;
  Wish wish_ = Wish::kBeat;
  bool ended_ = false;              // no heartbeat follows
  std::optional<Failure> failure_;  // why the job has failed
  Failure report_;
  Beat now_;
  std::string activity_;  // what the rank does outside of collectives
  std::thread thread_;
};

}  // namespace mixtune
