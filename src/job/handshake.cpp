#include "job/handshake.h"

#include <fmt/format.h>
#include <sodium.h>

#include "base/error.h"
#include "job/wire.h"

namespace mixtune {

namespace {

static_assert(kProofBytes == crypto_auth_hmacsha256_BYTES);

void start_sodium() {
  static const bool started = sodium_init() >= 0;
  MT_CHECK(started);
}

const unsigned char* bytes_in(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

}  // namespace

std::string random_bytes(size_t count) {
  start_sodium();
  std::string bytes(count, '\0');
  randombytes_buf(bytes.data(), bytes.size());
  return bytes;
}

// The proof is over a frame, because its fields cannot be told in two ways.
std::string make_proof(std::string_view token, Prover prover, const Handshake& handshake) {
  start_sodium();
  FrameWriter said(FrameKind::kProof);
  said.text(prover == Prover::kRank ? "rank" : "coordinator").text(kWireMagic);
  said.number(handshake.rank).number(handshake.size).number(static_cast<int64_t>(handshake.purpose));
  said.text(handshake.rank_nonce).text(handshake.coordinator_nonce);
  const std::string& text = said.frame();
  crypto_auth_hmacsha256_state state;
  crypto_auth_hmacsha256_init(&state, bytes_in(token), token.size());
  crypto_auth_hmacsha256_update(&state, bytes_in(text), text.size());
  std::string proof(kProofBytes, '\0');
  crypto_auth_hmacsha256_final(&state, reinterpret_cast<unsigned char*>(proof.data()));
  sodium_memzero(&state, sizeof state);
  return proof;
}

bool same_proof(std::string_view a, std::string_view b) {
  return a.size() == b.size() && sodium_memcmp(a.data(), b.data(), a.size()) == 0;
}

void check_token(std::string_view token) {
  if (!token.empty() && token.size() < kMinTokenBytes)
    throw UserError("MIXTUNE_TOKEN", fmt::format("has {} characters: it could be guessed", token.size()),
                    fmt::format("give at least {} random ones, such as openssl rand -hex 16 prints", kMinTokenBytes));
}

}  // namespace mixtune
