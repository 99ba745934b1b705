// CoordinatorProtocol: a coordinator's answers to what comes through its connections, and its knowledge of the job. It
// has no socket and no thread; the caller moves the bytes and tells the time.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "job/handshake.h"
#include "job/rank_watch.h"
#include "job/shared_values.h"
#include "job/wire.h"

namespace mixtune {

// One connection.
struct Peer {
  using Time = RankWatch::Time;
  // A stranger has proven nothing yet. A refused one gets its answer, and is heard no more.
  enum class Stage { kStranger, kChallenged, kRank, kRefused };
  struct Wait {
    int rank;
    std::string key;
    Time deadline;
  };

  explicit Peer(Time now) : since(now) {}

  bool proven() const { return stage == Stage::kRank; }
  bool heartbeats() const { return proven() && claim.purpose == Purpose::kHeartbeats; }
  int rank() const { return static_cast<int>(claim.rank); }

  Time since;
  Stage stage = Stage::kStranger;
  Handshake claim;      // what it says it is
  std::string in, out;  // bytes not handled yet; bytes to be sent
  std::string refusal;  // why it is refused
  std::optional<Wait> wait;
  bool reported = false;  // it waits for the decision
  bool told = false;      // it knows of the failure
  bool left = false;
  bool ended = false;  // it is to be closed
};

class CoordinatorProtocol {
 public:
  using Time = RankWatch::Time;

  CoordinatorProtocol(int size, std::string token, std::chrono::milliseconds timeout, Time now)
      : size_(size), token_(std::move(token)), values_(size), watch_(size, timeout, now), connections_(size) {}

  // How many bytes a connection may give now: 0 until it has been answered.
  static size_t room(const Peer& peer);
  // Handles what the bytes complete. A frame that no rank sends ends the connection without a word.
  void receive(Peer& peer, std::string_view bytes, Time now);
  // Answers a peer that has waited, and ends one that has been a stranger for too long. Called for every connection
  // every few milliseconds.
  void check(Peer& peer, Time now);
  // Tells that the connection is closed.
  void close(const Peer& peer);

  RankWatch& watch() { return watch_; }
  const RankWatch& watch() const { return watch_; }
  const SharedValues& values() const { return values_; }

 private:
  void handle(Peer& peer, std::string_view body, Time now);
  void challenge(Peer& peer, FrameReader& reader);
  void welcome(Peer& peer, FrameReader& reader, Time now);
  std::string problem_of(const Peer& peer, std::string_view proof, Time now);
  void answer_value(Peer& peer, FrameReader& reader, Time now);
  void answer_heartbeat(Peer& peer, FrameReader& reader, Time now);
  void take_beat(Peer& peer, FrameReader& reader, Time now);
  void take_report(Peer& peer, FrameReader& reader, Time now);
  void tell_failure(Peer& peer);

  const int size_;
  const std::string token_;
  SharedValues values_;
  RankWatch watch_;
  std::vector<int> connections_;  // of each rank, proven
};

}  // namespace mixtune
