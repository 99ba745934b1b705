// Coordinator: the one place that knows all ranks of a job. It serves their Store, hears their heartbeats, and decides,
// once, that the job has failed. A thread of it serves all connections. A connection that does not prove to be a rank
// of this job is turned away, and cannot keep the ranks out: the oldest stranger makes room.
#pragma once

#include <poll.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "job/coordinator_protocol.h"

namespace mixtune {

struct CoordinatorOptions {
  std::string host;                           // the name by which ranks reach it: it listens at that address
  int port = 0;                               // 0: any free one
  int size = 1;                               // number of ranks
  std::string token;                          // ranks must prove to know it
  std::chrono::milliseconds timeout{30000};   // of a heartbeat, and of a rank that others wait for
  std::chrono::milliseconds patience{30000};  // then a warning names the ranks that have not joined
};

class Coordinator {
 public:
  // Listens at all addresses of this machine, with a warning, where the host is none of them, or one that other
  // machines cannot mean. Throws UserError where it cannot listen.
  explicit Coordinator(CoordinatorOptions options);
  // Stays after a failure until the ranks know of it, at most a second.
  ~Coordinator();
  Coordinator(const Coordinator&) = delete;
  Coordinator& operator=(const Coordinator&) = delete;

  int port() const { return port_; }
  std::optional<Failure> failure() const;
  void fail(Failure failure);  // does nothing where the job has failed before
  // Waits until all ranks have said goodbye, or the job has failed and the ranks know.
  std::optional<Failure> wait();

  bool joined(int rank) const;
  std::string place(int rank) const;  // " at step 12, in 'forward'", as far as it is known

 private:
  struct Connection;
  using Time = RankWatch::Time;

  void serve();
  std::vector<pollfd> wait_for_events() const;
  void receive(Connection& connection, Time now);
  void flush(Connection& connection);
  void accept_all(const Fd& listener, Time now);
  bool make_room(Time now);
  void say_refused(const Connection& connection);
  void finish_round(Time now);
  void wait_until_told(std::unique_lock<std::mutex>& lock);
  void warn_of_absent(Time now);
  void warn(const std::string& text) const;

  const CoordinatorOptions options_;
  const Time start_;
  const bool warns_;
  std::vector<Fd> listeners_;
  int port_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  CoordinatorProtocol protocol_;
  int untold_ = 0;  // connected ranks that do not know of the failure

  std::list<Connection> connections_;  // from here on the thread's own
  Time listen_at_;                     // until then nobody is let in
  bool looked_for_absent_ = false, said_refused_ = false, said_full_ = false;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace mixtune
