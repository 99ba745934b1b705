#include "base/content_hash.h"

#include <sodium.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace mixtune {

namespace {

constexpr size_t kBytes = 32;
constexpr uint64_t kPiece = 4 << 20, kAdvance = 64 << 20;

}  // namespace

struct ContentHash::State {
  crypto_generichash_state hash;
};

ContentHash::ContentHash() : state_(std::make_unique<State>()) {
  MT_CHECK(sodium_init() >= 0);
  MT_CHECK(crypto_generichash_init(&state_->hash, nullptr, 0, kBytes) == 0);
}

ContentHash::~ContentHash() = default;

void ContentHash::add(std::span<const std::byte> bytes) {
  crypto_generichash_update(&state_->hash, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
}

void ContentHash::add_text(std::string_view text) {
  const uint64_t size = text.size();
  add(std::as_bytes(std::span(&size, 1)));
  add(std::as_bytes(std::span(text)));
}

std::string ContentHash::hex() {
  std::array<unsigned char, kBytes> bytes;
  crypto_generichash_final(&state_->hash, bytes.data(), bytes.size());
  std::array<char, 2 * kBytes + 1> text;
  sodium_bin2hex(text.data(), text.size(), bytes.data(), bytes.size());
  return text.data();
}

std::string hash_file(const std::string& path, const std::function<void()>& advanced) {
  const InputFile file(path);
  ContentHash hash;
  std::vector<std::byte> piece(std::min(kPiece, file.size()));
  for (uint64_t done = 0; done < file.size();) {
    const auto some = std::span(piece).first(std::min(kPiece, file.size() - done));
    file.read(done, some);
    hash.add(some);
    done += some.size();
    if (advanced && done % kAdvance == 0) advanced();
  }
  file.check_unchanged();
  return hash.hex();
}

}  // namespace mixtune
