#include "job/coordinator_protocol.h"

#include <fmt/format.h>

#include <utility>

#include "base/error.h"

namespace mixtune {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kStrangerTime{5000};  // a connection proves within it what it is
constexpr size_t kChunk = 64 << 10;
constexpr int kConnections = 8;  // of a rank: two, and those of attempts that it has given up

Error not_a_rank(std::string_view what) {
  return Error("", what, "");
}

void answer(Peer& peer, FrameWriter frame) {
  peer.out += frame.frame();
}

void refuse(Peer& peer, std::string_view why) {
  answer(peer, FrameWriter(FrameKind::kRefused).text(why));
}

}  // namespace

size_t CoordinatorProtocol::room(const Peer& peer) {
  if (peer.ended || peer.stage == Peer::Stage::kRefused || !peer.out.empty()) return 0;
  return peer.proven() ? kChunk : kFrameHead + kMaxHello - peer.in.size();
}

void CoordinatorProtocol::receive(Peer& peer, std::string_view bytes, Time now) {
  peer.in += bytes;
  try {
    while (peer.stage != Peer::Stage::kRefused) {
      const auto body = first_frame(peer.in, peer.proven() ? kMaxFrame : kMaxHello);
      if (!body) return;
      handle(peer, *body, now);
      peer.in.erase(0, kFrameHead + body->size());
    }
  } catch (const Error&) {
    peer.ended = true;
  }
}

void CoordinatorProtocol::handle(Peer& peer, std::string_view body, Time now) {
  if (peer.wait || peer.reported) throw not_a_rank("it asks before it is answered");
  FrameReader reader(body);
  switch (peer.stage) {
    case Peer::Stage::kStranger:
      challenge(peer, reader);
      break;
    case Peer::Stage::kChallenged:
      welcome(peer, reader, now);
      break;
    default:
      peer.claim.purpose == Purpose::kValues ? answer_value(peer, reader, now) : answer_heartbeat(peer, reader, now);
  }
  reader.end();
}

void CoordinatorProtocol::challenge(Peer& peer, FrameReader& reader) {
  if (reader.kind() != FrameKind::kHello || reader.text() != kWireMagic) throw not_a_rank("a stranger");
  peer.claim.rank = reader.number();
  peer.claim.size = reader.number();
  peer.claim.purpose = static_cast<Purpose>(reader.number_within(0, 1));
  peer.claim.rank_nonce = reader.text();
  if (peer.claim.rank_nonce.size() != kNonceBytes) throw not_a_rank("a stranger");
  peer.claim.coordinator_nonce = random_bytes(kNonceBytes);
  peer.stage = Peer::Stage::kChallenged;
  answer(peer, FrameWriter(FrameKind::kChallenge).text(peer.claim.coordinator_nonce));
}

void CoordinatorProtocol::welcome(Peer& peer, FrameReader& reader, Time now) {
  if (reader.kind() != FrameKind::kProof) throw not_a_rank("a stranger");
  peer.refusal = problem_of(peer, reader.text(), now);
  if (!peer.refusal.empty()) {
    peer.stage = Peer::Stage::kRefused;
    return refuse(peer, peer.refusal);
  }
  peer.stage = Peer::Stage::kRank;
  ++connections_[static_cast<size_t>(peer.rank())];
  answer(peer, FrameWriter(FrameKind::kWelcome).text(make_proof(token_, Prover::kCoordinator, peer.claim)));
}

// Checks the proof first: a peer that does not know the token learns nothing else.
std::string CoordinatorProtocol::problem_of(const Peer& peer, std::string_view proof, Time now) {
  if (!same_proof(proof, make_proof(token_, Prover::kRank, peer.claim)))
    return "this is another job, or its MIXTUNE_TOKEN is another";
  if (peer.claim.size != size_ || peer.claim.rank < 0 || peer.claim.rank >= size_)
    return fmt::format("this job has {} ranks", size_);
  if (connections_[static_cast<size_t>(peer.rank())] >= kConnections) return "this rank has too many connections";
  if (peer.claim.purpose == Purpose::kHeartbeats && !watch_.join(peer.rank(), now))
    return "this rank has joined before";
  return "";
}

void CoordinatorProtocol::answer_value(Peer& peer, FrameReader& reader, Time now) {
  if (reader.kind() == FrameKind::kSet) {
    const std::string key = reader.text();
    const std::string problem = values_.set(peer.rank(), key, reader.text());
    return problem.empty() ? answer(peer, FrameWriter(FrameKind::kDone)) : refuse(peer, problem);
  }
  if (reader.kind() != FrameKind::kGet) throw not_a_rank("no question of a rank");
  const int rank = reader.number_within(0, size_ - 1);
  std::string key = reader.text();
  peer.wait = {.rank = rank, .key = std::move(key), .deadline = now + milliseconds(reader.number_within(0, 1 << 30))};
}

void CoordinatorProtocol::answer_heartbeat(Peer& peer, FrameReader& reader, Time now) {
  if (peer.left) throw not_a_rank("it speaks after its goodbye");
  switch (reader.kind()) {
    case FrameKind::kBeat:
      return take_beat(peer, reader, now);
    case FrameKind::kReport:
      return take_report(peer, reader, now);
    case FrameKind::kGoodbye:
      watch_.leave(peer.rank());
      peer.left = true;
      return watch_.failure() ? tell_failure(peer) : answer(peer, FrameWriter(FrameKind::kDone));
    default:
      throw not_a_rank("no heartbeat");
  }
}

void CoordinatorProtocol::take_beat(Peer& peer, FrameReader& reader, Time now) {
  Beat beat{.step = reader.number(), .collectives = static_cast<uint64_t>(reader.number())};
  beat.inside = reader.number() != 0;
  beat.collective = reader.text();
  beat.activity = reader.text();
  beat.advances = static_cast<uint64_t>(reader.number());
  watch_.beat(peer.rank(), std::move(beat), now);
  if (watch_.failure()) return tell_failure(peer);
  answer(peer, FrameWriter(FrameKind::kHeard).number(watch_.waits_for_work(peer.rank(), now)));
}

void CoordinatorProtocol::take_report(Peer& peer, FrameReader& reader, Time now) {
  Failure failure{.rank = peer.rank(), .exit_code = reader.number_within(1, 255)};
  failure.message = reader.text();
  watch_.report(std::move(failure), now);
  peer.reported = true;
}

void CoordinatorProtocol::tell_failure(Peer& peer) {
  const Failure& failure = *watch_.failure();
  answer(peer, std::move(FrameWriter(FrameKind::kFailed)
                             .number(failure.rank)
                             .number(failure.exit_code)
                             .number(failure.connection_lost)
                             .text(failure.message)));
  peer.told = true;
}

void CoordinatorProtocol::check(Peer& peer, Time now) {
  if (!peer.proven() && now - peer.since > kStrangerTime) peer.ended = true;
  if (peer.reported && watch_.failure()) {
    peer.reported = false;
    tell_failure(peer);
  }
  if (!peer.wait) return;
  if (const std::string* value = values_.find(peer.wait->rank, peer.wait->key))
    answer(peer, FrameWriter(FrameKind::kValue).text(*value));
  else if (watch_.failure())
    tell_failure(peer);
  else if (now >= peer.wait->deadline)
    answer(peer, FrameWriter(FrameKind::kExpired).text(watch_.absent()));
  else
    return;
  peer.wait.reset();
}

void CoordinatorProtocol::close(const Peer& peer) {
  if (!peer.proven()) return;
  --connections_[static_cast<size_t>(peer.rank())];
  if (peer.heartbeats() && !peer.left) watch_.lose(peer.rank());
}

}  // namespace mixtune
