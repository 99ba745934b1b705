#include "job/handshake.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "job/shared_values.h"
#include "job/socket.h"

namespace mixtune {
namespace {

using std::chrono::steady_clock;

Handshake handshake() {
  return {.rank = 3,
          .size = 8,
          .purpose = Purpose::kHeartbeats,
          .rank_nonce = std::string(kNonceBytes, 'r'),
          .coordinator_nonce = std::string(kNonceBytes, 'c')};
}

std::string hex(std::string_view bytes) {
  std::string text;
  for (const unsigned char byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

// The expected text is from Python's hmac, over the same frame.
TEST(Handshake, ProofIsTheHmac) {
  EXPECT_EQ(hex(make_proof("the token of the tests", Prover::kRank, handshake())),
            "042d14b9362f3ffc86d5ca700337834a72e74faa75842dcf69b5f441cb49ec33");
}

TEST(Handshake, ProofDependsOnEverything) {
  const std::string proof = make_proof("token", Prover::kRank, handshake());
  EXPECT_TRUE(same_proof(proof, make_proof("token", Prover::kRank, handshake())));
  EXPECT_FALSE(same_proof(proof, make_proof("other", Prover::kRank, handshake())));
  EXPECT_FALSE(same_proof(proof, make_proof("token", Prover::kCoordinator, handshake())));
  EXPECT_FALSE(same_proof(proof, ""));
  const auto changed = [](auto change) {
    Handshake other = handshake();
    change(other);
    return make_proof("token", Prover::kRank, other);
  };
  EXPECT_FALSE(same_proof(proof, changed([](Handshake& h) { h.rank = 2; })));
  EXPECT_FALSE(same_proof(proof, changed([](Handshake& h) { h.size = 9; })));
  EXPECT_FALSE(same_proof(proof, changed([](Handshake& h) { h.purpose = Purpose::kValues; })));
  EXPECT_FALSE(same_proof(proof, changed([](Handshake& h) { h.rank_nonce[0] = 'x'; })));
  EXPECT_FALSE(same_proof(proof, changed([](Handshake& h) { h.coordinator_nonce[31] = 'x'; })));
  EXPECT_FALSE(same_proof(proof, changed([](Handshake& h) { std::swap(h.rank_nonce, h.coordinator_nonce); })));
}

TEST(Handshake, NoncesAreNew) {
  EXPECT_EQ(random_bytes(kNonceBytes).size(), kNonceBytes);
  EXPECT_NE(random_bytes(kNonceBytes), random_bytes(kNonceBytes));
}

TEST(Handshake, ShortTokensAreRefused) {
  EXPECT_NO_THROW(check_token(""));
  EXPECT_NO_THROW(check_token("0123456789abcdef"));
  EXPECT_THROW(check_token("0123456789abcde"), UserError);
}

TEST(SharedValues, BelongToTheirRankAndStay) {
  SharedValues values(2);
  EXPECT_EQ(values.set(0, "key", "a"), "");
  EXPECT_EQ(values.set(1, "key", "b"), "");
  EXPECT_EQ(values.set(1, "key", "b"), "rank 1 has set 'key' before");
  EXPECT_EQ(*values.find(0, "key"), "a");
  EXPECT_EQ(*values.find(1, "key"), "b");
  EXPECT_EQ(values.find(0, "none"), nullptr);
  EXPECT_EQ(values.bytes(), 8u);
}

TEST(SharedValues, AreBounded) {
  SharedValues values(2);
  EXPECT_EQ(values.set(0, std::string(SharedValues::kMaxKeyBytes + 1, 'k'), ""), "the key of a value has 1025 bytes");
  EXPECT_EQ(values.set(0, "k", std::string(SharedValues::kMaxBytesOfRank, 'x')),
            "rank 0 has no room for 'k' beside its 0 values of 0 bytes");
  EXPECT_EQ(values.set(0, "k", std::string(SharedValues::kMaxBytesOfRank - 1, 'x')), "");
  EXPECT_NE(values.set(0, "l", ""), "");
  for (size_t i = 0; i < SharedValues::kMaxOfRank; ++i) EXPECT_EQ(values.set(1, fmt::format("{}", i), ""), "");
  EXPECT_NE(values.set(1, "one more", ""), "");
}

TEST(Socket, OwnAddresses) {
  const OwnAddresses loopback = own_addresses("127.0.0.1");
  EXPECT_EQ(loopback.addresses, std::vector<std::string>{"127.0.0.1"});
  EXPECT_EQ(loopback.problem, "");
  const OwnAddresses name = own_addresses("localhost");
  EXPECT_EQ(name.problem, "");
  ASSERT_FALSE(name.addresses.empty());
  for (const std::string& address : name.addresses) EXPECT_TRUE(address == "127.0.0.1" || address == "::1") << address;
  const OwnAddresses elsewhere = own_addresses("192.0.2.1");  // an address for documentation: nobody has it
  EXPECT_TRUE(elsewhere.addresses.empty());
  EXPECT_EQ(elsewhere.problem, "192.0.2.1 is no address of this machine");
  EXPECT_THROW(own_addresses("no-such-name.invalid"), UserError);
}

TEST(Socket, ListensWhereItIsToldAlone) {
  const Fd listener = listen_at("127.0.0.1", 0);
  EXPECT_EQ(own_address(listener), "127.0.0.1");
  EXPECT_THROW(connect_to("127.0.0.2", port_of(listener), steady_clock::now() + std::chrono::seconds(10)), Error);
  EXPECT_THROW(listen_at("192.0.2.1", 0), UserError);
}

// The resolver may take its time, whatever it finds.
TEST(Socket, NamesAreResolvedInTimeOrNot) {
  const auto start = steady_clock::now();
  EXPECT_THROW(connect_to("no-such-name.invalid", 1, start + std::chrono::milliseconds(1)), Error);
  EXPECT_LT(steady_clock::now() - start, std::chrono::seconds(2));
}

}  // namespace
}  // namespace mixtune
