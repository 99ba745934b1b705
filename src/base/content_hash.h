// ContentHash: names contents by 256 bits that nobody can make two contents share (BLAKE2b, of libsodium).
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace mixtune {

class ContentHash {
 public:
  ContentHash();
  ~ContentHash();

  void add(std::span<const std::byte> bytes);
  // Adds a text with its length in front: so texts are told apart wherever one ends.
  void add_text(std::string_view text);
  std::string hex();  // 64 digits over all that was added; ends the hash

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The hash of a file's bytes. `advanced`, if not empty, is called after every 64 MiB. Throws as InputFile does.
std::string hash_file(const std::string& path, const std::function<void()>& advanced = {});

}  // namespace mixtune
