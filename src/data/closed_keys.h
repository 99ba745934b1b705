// A record is a closed list of keys: check_keys says what becomes of one that its format does not read.
#pragma once

#include <span>
#include <string_view>

#include "data/fields.h"
#include "data/unread_keys.h"

namespace mixtune {

// A key whose value would change what is trained, and that is not honoured.
struct RefusedKey {
  std::string_view key, what, mend;
};

// What is said of a reasoning model's thoughts.
inline constexpr std::string_view kReasoning = "has no place in the chat template";
inline constexpr std::string_view kIntoText = "write it into the text, or remove it";

// Throws UserError for a key that is not among `read`, holds something, and is in `refused` or in the lists that hold
// for every object: preferences, images and sounds, reasoning, weights and masks. Every other key that is not null is
// added to `unread` as PREFIX.KEY (KEY alone where there is no prefix).
void check_keys(const Fields& fields, std::span<const std::string_view> read, std::span<const RefusedKey> refused,
                std::string_view prefix, UnreadKeys& unread);

}  // namespace mixtune
