// Added tokens: control tokens and users' own, which stand in a text under their names, beside a tokeniser's pieces.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mixtune {

// The fields of tokenizers' AddedToken.
struct AddedToken {
  std::string name;
  int32_t id = -1;
  bool special = false;     // decodes to nothing; text that spells it stays text, unless the user asks for more
  bool lstrip = false;      // takes in the white space before it
  bool rstrip = false;      // takes in the white space after it
  bool normalized = false;  // found in the normalised text, which has a space before the name too
  bool operator==(const AddedToken&) const = default;
};

// Finds names in a text, from left to right: of those that begin at one place, the longest.
class NameFinder {
 public:
  NameFinder() = default;
  explicit NameFinder(std::vector<std::pair<std::string, size_t>> names);  // none empty, each with its number

  struct Match {
    size_t begin, end;  // bytes
    size_t number;
  };
  std::optional<Match> find(std::string_view text, size_t from) const;
  bool empty() const { return names_.empty(); }

 private:
  std::optional<Match> longest_at(std::string_view text, size_t at) const;

  std::vector<std::pair<std::string, size_t>> names_;  // sorted
  std::array<bool, 256> first_{};                      // whether some name begins with this byte
};

// How many bytes of White_Space (Unicode's, with or without " " itself) are at the start, or the end, of `text`.
size_t leading_space(std::string_view text, bool blanks = true);
size_t trailing_space(std::string_view text, bool blanks = true);

}  // namespace mixtune
