// Any bytes to a coordinator, of strangers and of a rank that knows the token, in pieces and over time: each is taken,
// refused or ended, what is kept is bounded, and no stranger becomes a rank.
#include <chrono>
#include <cstdint>
#include <string>

#include "base/error.h"
#include "job/coordinator_protocol.h"

namespace {

using namespace mixtune;
using std::chrono::milliseconds;

constexpr int kRanks = 3;
constexpr const char* kToken = "a token of the fuzzer's";

// Takes the input apart; once it is empty there are only zeros.
class Input {
 public:
  explicit Input(std::string_view bytes) : bytes_(bytes) {}

  bool empty() const { return bytes_.empty(); }
  uint8_t byte() { return empty() ? 0 : static_cast<uint8_t>(take(1)[0]); }
  std::string_view take(size_t size) {
    const std::string_view part = bytes_.substr(0, size);
    bytes_.remove_prefix(part.size());
    return part;
  }

 private:
  std::string_view bytes_;
};

void give(CoordinatorProtocol& coordinator, Peer& peer, std::string_view bytes, Peer::Time now) {
  while (!bytes.empty() && CoordinatorProtocol::room(peer) > 0) {
    const std::string_view part = bytes.substr(0, CoordinatorProtocol::room(peer));
    coordinator.receive(peer, part, now);
    bytes.remove_prefix(part.size());
  }
  const size_t limit = kFrameHead + (peer.proven() ? kMaxFrame + (64 << 10) : kMaxHello);
  MT_CHECK(peer.ended || peer.stage == Peer::Stage::kRefused || peer.in.size() <= limit);
}

// A rank that proves itself as it should.
Peer join(CoordinatorProtocol& coordinator, Handshake claim, Peer::Time now) {
  Peer peer(now);
  claim.rank_nonce = std::string(kNonceBytes, 'n');
  FrameWriter hello(FrameKind::kHello);
  hello.text(kWireMagic).number(claim.rank).number(claim.size).number(static_cast<int64_t>(claim.purpose));
  give(coordinator, peer, hello.text(claim.rank_nonce).frame(), now);
  claim.coordinator_nonce = FrameReader(std::string_view(peer.out).substr(kFrameHead)).text();
  peer.out.clear();
  FrameWriter proof(FrameKind::kProof);
  give(coordinator, peer, proof.text(make_proof(kToken, Prover::kRank, claim)).frame(), now);
  peer.out.clear();
  return peer;
}

void check_answer(const Peer& peer) {
  std::string_view out = peer.out;
  while (const auto body = first_frame(out, kMaxFrame)) {
    MT_CHECK(FrameReader(*body).kind() <= FrameKind::kFailed);
    out.remove_prefix(kFrameHead + body->size());
  }
  MT_CHECK(out.empty());
}

}  // namespace

// Each round: whose bytes, how many milliseconds later, how many bytes (as 256 b), and these.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input({reinterpret_cast<const char*>(data), size});
  Peer::Time now{};
  CoordinatorProtocol coordinator(kRanks, kToken, milliseconds(1000), now);
  Peer peers[] = {Peer(now), Peer(now), join(coordinator, {.rank = 1, .size = kRanks}, now),
                  join(coordinator, {.rank = 1, .size = kRanks, .purpose = Purpose::kHeartbeats}, now)};
  MT_CHECK(peers[2].proven() && peers[3].heartbeats());
  while (!input.empty()) {
    Peer& peer = peers[input.byte() % std::size(peers)];
    now += milliseconds(input.byte());
    const size_t high = input.byte();
    give(coordinator, peer, input.take(256 * high + input.byte()), now);
    coordinator.watch().check(now);
    for (Peer& each : peers) {
      if (each.ended) continue;
      coordinator.check(each, now);
      check_answer(each);
      each.out.clear();
      if (each.ended) coordinator.close(each);
    }
    MT_CHECK(!peers[0].proven() && !peers[1].proven());
    MT_CHECK(coordinator.values().bytes() <= kRanks * SharedValues::kMaxBytesOfRank);
  }
  return 0;
}
