// Coordinator: the one place that knows all ranks of a job. It serves their Store, hears their heartbeats, and decides,
// once, that the job has failed. A thread of it serves all connections; what is not a rank of this job is turned away.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/file.h"
#include "parallel/rank_watch.h"

namespace mixtune {

struct CoordinatorOptions {
  std::string host;                           // to listen at; empty: all addresses of this machine
  int port = 0;                               // 0: any free one
  int size = 1;                               // ranks
  std::string token;                          // that ranks must know
  std::chrono::milliseconds timeout{30000};   // of a heartbeat, and of a rank that others wait for in a collective
  std::chrono::milliseconds patience{30000};  // after which a warning names the ranks that have not joined
};

class Coordinator {
 public:
  explicit Coordinator(CoordinatorOptions options);
  // After a failure, stays until the ranks know of it, a second at most.
  ~Coordinator();
  Coordinator(const Coordinator&) = delete;
  Coordinator& operator=(const Coordinator&) = delete;

  int port() const { return port_; }
  std::optional<Failure> failure() const;
  void fail(Failure failure);  // unless the job has failed before
  // Waits until all ranks have said goodbye, or the job has failed and the ranks know.
  std::optional<Failure> wait();

  bool joined(int rank) const;
  std::string place(int rank) const;  // " at step 12, in 'forward'", as far as it is known

 private:
  struct Connection;
  using Time = RankWatch::Time;

  void serve();
  void accept_all(Time now);
  void receive(Connection& connection, Time now);
  void handle(Connection& connection, std::string_view body, Time now);
  void greet(Connection& connection, std::string_view body, Time now);
  void end_old(Connection& connection, Time now);
  void answer_waiting(Connection& connection, Time now);
  void answer_beat(Connection& connection);
  void wait_until_told(std::unique_lock<std::mutex>& lock);
  void warn_of_absent(Time now);

  const CoordinatorOptions options_;
  const Time start_;
  Fd listener_;
  int port_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  RankWatch watch_;
  int untold_ = 0;  // ranks that are connected and do not know of the failure

  std::map<std::string, std::string> values_;  // from here on the thread's own
  std::list<Connection> connections_;
  bool looked_for_absent_ = false;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace mixtune
