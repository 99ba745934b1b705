// Xxh3: 64 bits of XXH3 over bytes that come in order. It finds damage, and proves nothing to an adversary.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace mixtune {

class Xxh3 {
 public:
  Xxh3();
  ~Xxh3();
  Xxh3(Xxh3&&) noexcept;
  Xxh3& operator=(Xxh3&&) noexcept;

  void add(std::span<const std::byte> bytes);
  // The digest of what was added, 16 hexadecimal digits as `xxhsum -H3` prints them; what comes is of another one.
  std::string take();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mixtune
