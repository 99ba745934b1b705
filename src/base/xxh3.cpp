#include "base/xxh3.h"

#include <fmt/format.h>
#include <xxhash.h>

#include "base/error.h"

namespace mixtune {

struct Xxh3::State {
  State() {
    MT_CHECK(hash != nullptr);
    restart();
  }
  ~State() { XXH3_freeState(hash); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void restart() { MT_CHECK(XXH3_64bits_reset(hash) == XXH_OK); }

  XXH3_state_t* const hash = XXH3_createState();
};

Xxh3::Xxh3() : state_(std::make_unique<State>()) {}
Xxh3::~Xxh3() = default;
Xxh3::Xxh3(Xxh3&&) noexcept = default;
Xxh3& Xxh3::operator=(Xxh3&&) noexcept = default;

void Xxh3::add(std::span<const std::byte> bytes) {
  MT_CHECK(XXH3_64bits_update(state_->hash, bytes.data(), bytes.size()) == XXH_OK);
}

std::string Xxh3::take() {
  const XXH64_hash_t digest = XXH3_64bits_digest(state_->hash);
  state_->restart();
  return fmt::format("{:016x}", digest);
}

}  // namespace mixtune
