#include "job/rank_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace mixtune {

namespace {

using std::chrono::milliseconds;

// The time in which the loss of a rank may become known. Other ranks, whose connections it breaks, report that first;
// its own loss is the better message.
constexpr milliseconds kSettle{50};
// How long a rank may miss heartbeats before it counts as silent where another reason to fail is there.
constexpr milliseconds kQuiet{1000};
// A pause between looks that means that the watch itself, or its machine, was stopped.
constexpr milliseconds kStall{1000};
// A rank that moves for longer than this after others began to wait for it is at work on something long.
constexpr milliseconds kSlow{1000};
constexpr size_t kMessageLimit = 2000;

}  // namespace

std::string format_seconds(milliseconds time) {
  return fmt::format("{:g} s", std::chrono::duration<double>(time).count());
}

bool RankWatch::join(int rank, Time now) {
  if (joined(rank)) return false;
  at(rank) = {.state = State::kHere, .heard = now, .moved = now};
  return true;
}

void RankWatch::beat(int rank, Beat beat, Time now) {
  Rank& r = at(rank);
  beat.collective = printable(beat.collective);
  beat.activity = printable(beat.activity);
  if (beat != r.beat) r.moved = now;
  r.beat = std::move(beat);
  r.heard = now;
}

void RankWatch::leave(int rank) {
  at(rank).state = State::kLeft;
}

void RankWatch::lose(int rank) {
  if (at(rank).state != State::kHere) return;
  at(rank).state = State::kLost;
  fail({.rank = rank,
        .message = fmt::format("rank {} was lost (killed, or it crashed){}", rank, place(rank)),
        .connection_lost = true});
}

void RankWatch::report(Failure failure, Time now) {
  at(failure.rank).state = State::kReported;
  if (reported_) return;
  failure.message =
      fmt::format("rank {}{}: {}", failure.rank, place(failure.rank), printable(failure.message, kMessageLimit));
  reported_ = std::move(failure);
  reported_at_ = now;
}

void RankWatch::fail(Failure failure) {
  if (!failure_) failure_ = std::move(failure);
}

void RankWatch::check(Time now) {
  const auto stalled = now - std::exchange(checked_at_, now);
  if (stalled > kStall) {
    behind_since_ += stalled;
    for (Rank& r : ranks_) {
      r.heard += stalled;
      r.moved += stalled;
    }
  }
  if (reported_ && now - reported_at_ >= kSettle) fail(*reported_);
  if (!failure_) look_for_silent(now);
  if (!failure_) look_for_missing(now);
}

void RankWatch::look_for_silent(Time now) {
  for (int rank = 0; rank < std::ssize(ranks_); ++rank)
    if (at(rank).state == State::kHere && now - at(rank).heard > timeout_) return fail_silent(rank, now);
}

// The rank that others wait for: all enter the same collectives in the same order, so it is the one that has entered
// the fewest. -1: no rank is here.
int RankWatch::last() const {
  int last = -1;
  for (int rank = 0; rank < std::ssize(ranks_); ++rank)
    if (at(rank).state == State::kHere && (last < 0 || at(rank).beat.collectives < at(last).beat.collectives))
      last = rank;
  return last;
}

RankWatch::Time RankWatch::standing_since(int rank) const {
  return rank == behind_ ? std::max(at(rank).moved, behind_since_) : at(rank).moved;
}

void RankWatch::look_for_missing(Time now) {
  const int missing = last();
  if (std::exchange(behind_, missing) != missing) behind_since_ = now;
  if (missing < 0 || now - standing_since(missing) <= timeout_) return;
  const Rank* waiting = nullptr;
  for (const Rank& r : ranks_)
    if (r.state == State::kHere && r.beat.inside && now - r.moved > timeout_ &&
        r.beat.collectives > at(missing).beat.collectives &&
        (waiting == nullptr || r.beat.collectives < waiting->beat.collectives))
      waiting = &r;
  if (waiting == nullptr) return;
  if (now - at(missing).heard > kQuiet) return fail_silent(missing, now);
  fail_missing(missing, *waiting);
}

void RankWatch::fail_missing(int rank, const Rank& waiting) {
  const Rank& missing = at(rank);
  const std::string step = waiting.beat.step >= 0 ? fmt::format(" of step {}", waiting.beat.step) : "";
  const std::string time = format_seconds(timeout_);
  const std::string activity =
      missing.beat.activity.empty() ? "" : fmt::format(": it is in '{}'", missing.beat.activity);
  const bool worked = missing.moved - waiting.moved > kSlow;
  fail({.rank = rank,
        .message = fmt::format("rank {} did not come to '{}'{}{} {}{}", rank, waiting.beat.collective, step,
                               worked ? ", and has stood still for" : " within", time, activity)});
}

bool RankWatch::waits_for_work(int rank, Time now) const {
  const int behind = last();
  if (behind < 0 || at(behind).beat.collectives >= at(rank).beat.collectives) return false;
  return behind != behind_ || now - standing_since(behind) <= timeout_;
}

void RankWatch::fail_silent(int rank, Time now) {
  const auto silent = std::chrono::floor<milliseconds>(now - at(rank).heard);
  const bool long_enough = silent >= timeout_;
  fail({.rank = rank,
        .message = fmt::format(
            "rank {} has not answered for {} (stopped, or its machine is){}", rank,
            format_seconds(long_enough ? timeout_ : std::chrono::floor<std::chrono::seconds>(silent)), place(rank))});
}

bool RankWatch::all_left() const {
  for (const Rank& r : ranks_)
    if (r.state != State::kLeft) return false;
  return true;
}

std::string RankWatch::place(int rank) const {
  const Beat& beat = at(rank).beat;
  std::string place;
  if (beat.step >= 0) place += fmt::format(" at step {}", beat.step);
  if (!beat.activity.empty()) place += fmt::format("{} in '{}'", place.empty() ? "" : ",", beat.activity);
  return place;
}

std::string RankWatch::absent() const {
  std::string list;
  int count = 0;
  for (int rank = 0; rank < std::ssize(ranks_); ++rank)
    if (!joined(rank)) {
      list += fmt::format("{}{}", list.empty() ? "" : ", ", rank);
      ++count;
    }
  if (count == 0) return "";
  return fmt::format("rank{} {} {} not joined", count > 1 ? "s" : "", list, count > 1 ? "have" : "has");
}

}  // namespace mixtune
