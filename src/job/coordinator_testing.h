// Helpers for tests of the coordinator: ranks that are threads of this process, and ranks that speak by hand.
#pragma once

#include <chrono>
#include <future>
#include <string>

#include "base/error.h"
#include "job/coordinator.h"
#include "job/coordinator_client.h"
#include "job/handshake.h"
#include "job/socket.h"
#include "job/wire.h"

namespace mixtune {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr const char* kHost = "127.0.0.1";
constexpr const char* kToken = "the token of the tests";
constexpr milliseconds kShort{300};
constexpr milliseconds kFewBeats{800};  // even on a busy machine ranks get a heartbeat through
constexpr milliseconds kLong{10000};    // more than a test waits for anything that will come

inline Coordinator make_coordinator(int size, milliseconds timeout = kLong) {
  return Coordinator({.host = kHost, .size = size, .token = kToken, .timeout = timeout});
}

// A rank in a thread of this process, and what it hears of the job's end.
struct Rank {
  Rank(int port, int rank, int size, milliseconds timeout = kLong, const char* token = kToken)
      : client({.host = kHost,
                .port = port,
                .rank = rank,
                .size = size,
                .token = token,
                .timeout = timeout,
                .on_failure = [this](const Failure& failure) {
                  told.set_value(failure);
                }}) {}

  std::string message() {
    auto future = told.get_future();
    return future.wait_for(kLong) == std::future_status::ready ? future.get().message : "none";
  }

  std::promise<Failure> told;
  CoordinatorClient client;
};

template <class F>
std::string error_of(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "none";
}

inline SteadyTime soon() {
  return steady_clock::now() + kLong;
}

// Says hello as `claim` does, and adds both nonces to it.
inline Fd say_hello(int port, Handshake& claim) {
  Fd socket = connect_to(kHost, port, soon());
  claim.rank_nonce = random_bytes(kNonceBytes);
  FrameWriter hello(FrameKind::kHello);
  hello.text(kWireMagic).number(claim.rank).number(claim.size).number(static_cast<int64_t>(claim.purpose));
  send_frame(socket, hello.text(claim.rank_nonce).frame(), soon());
  const std::string answer = receive_frame(socket, soon());
  claim.coordinator_nonce = FrameReader(answer).text();
  return socket;
}

// Sends a frame. Returns the kind of the answer.
inline FrameKind ask(const Fd& socket, const std::string& frame) {
  send_frame(socket, frame, soon());
  const std::string answer = receive_frame(socket, soon());
  return FrameReader(answer).kind();
}

inline FrameKind give_proof(const Fd& socket, const std::string& proof) {
  return ask(socket, FrameWriter(FrameKind::kProof).text(proof).frame());
}

// Joins as a rank that does no more than its caller makes it do.
inline Fd join_by_hand(int port, Handshake claim) {
  Fd socket = say_hello(port, claim);
  MT_CHECK(give_proof(socket, make_proof(kToken, Prover::kRank, claim)) == FrameKind::kWelcome);
  return socket;
}

}  // namespace mixtune
