// RankWatch: decides that the job has failed, and why, from what its ranks say and when. It has no thread and no
// socket; the caller tells the time.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mixtune {

// Why a job ends. Only the first failure of a job counts.
struct Failure {
  int rank = -1;                 // the rank that failed; -1: the coordinator
  std::string message;           // one line
  int exit_code = 1;             // for all of the job's processes
  bool connection_lost = false;  // all that is known is that the rank is gone
};

// Where a rank is, as every heartbeat says.
struct Beat {
  int64_t step = -1;         // -1: before the first
  uint64_t collectives = 0;  // how many it has entered since it began
  bool inside = false;       // it is in the last of them
  std::string collective;    // the last one's name
  std::string activity;      // what the rank does; inside, usually what it did on entering
  uint64_t advances = 0;     // pieces of long work, such as saving, done since it began

  bool operator==(const Beat&) const = default;
};

// "30 s", "0.3 s"
std::string format_seconds(std::chrono::milliseconds time);

class RankWatch {
 public:
  using Time = std::chrono::steady_clock::time_point;

  RankWatch(int size, std::chrono::milliseconds timeout, Time now)
      : timeout_(timeout), ranks_(static_cast<size_t>(size)), checked_at_(now) {}

  bool join(int rank, Time now);  // false: it joined before
  void beat(int rank, Beat beat, Time now);
  void leave(int rank);  // the rank is done, and may go
  void lose(int rank);   // the rank went without leave
  void report(Failure failure, Time now);

  // Ends the job, unless it has ended before.
  void fail(Failure failure);
  // Looks for ranks that are silent, or missing. Missing is a rank that others wait for in a collective, when it stands
  // still, as they do, for the timeout. A rank whose heartbeats say something new is at work, however long it takes.
  // One that waited for another has stood still only since that one is no longer behind it. Called every few
  // milliseconds; where the calls stopped, all ranks get the time.
  void check(Time now);

  const std::optional<Failure>& failure() const { return failure_; }
  bool joined(int rank) const { return at(rank).state != State::kAbsent; }
  bool all_left() const;
  // Whether the rank that this one may be waiting for is behind it, and has moved within the timeout.
  bool waits_for_work(int rank, Time now) const;
  std::string place(int rank) const;  // " at step 12, in 'forward'", as far as it is known
  std::string absent() const;         // "ranks 2, 3 have not joined", or ""

 private:
  enum class State { kAbsent, kHere, kReported, kLeft, kLost };
  struct Rank {
    State state = State::kAbsent;
    Beat beat;
    Time heard;  // the last heartbeat
    Time moved;  // the last heartbeat that said something new
  };

  Rank& at(int rank) { return ranks_.at(static_cast<size_t>(rank)); }
  const Rank& at(int rank) const { return ranks_.at(static_cast<size_t>(rank)); }
  void look_for_silent(Time now);
  int last() const;
  Time standing_since(int rank) const;
  void look_for_missing(Time now);
  void fail_missing(int rank, const Rank& waiting);
  void fail_silent(int rank, Time now);

  std::chrono::milliseconds timeout_;
  std::vector<Rank> ranks_;
  std::optional<Failure> reported_, failure_;
  Time reported_at_, checked_at_;
  int behind_ = -1;    // last() at the last look
  Time behind_since_;  // since when it is
};

}  // namespace mixtune
