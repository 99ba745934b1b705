// How a rank and its coordinator prove to each other, without sending it, that both know the token of the job. Each
// gives the other a number that is used once (nonce). The proof is HMAC-SHA256 under the token over both numbers, what
// the rank says that it is, and who proves it. So a proof is worth nothing in another connection, nor from the other
// side.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mixtune {

// A connection's use. A rank is lost when the connection of its heartbeats ends.
enum class Purpose : int64_t { kValues, kHeartbeats };

constexpr size_t kNonceBytes = 32, kProofBytes = 32;
// The least length of a user's token: a shorter one could be guessed from the proofs that are seen.
constexpr size_t kMinTokenBytes = 16;

struct Handshake {
  int64_t rank = 0, size = 1;
  Purpose purpose = Purpose::kValues;
  std::string rank_nonce, coordinator_nonce;
};

enum class Prover { kRank, kCoordinator };

std::string random_bytes(size_t count);
std::string make_proof(std::string_view token, Prover prover, const Handshake& handshake);
// Compares in a time that does not depend on where they differ.
bool same_proof(std::string_view a, std::string_view b);

// Throws UserError where a user's token is too short. "" is no token: anybody can then prove to know it.
void check_token(std::string_view token);

}  // namespace mixtune
