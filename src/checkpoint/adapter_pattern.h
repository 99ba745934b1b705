// AdapterPattern: a key of an adapter's rank_pattern or alpha_pattern, a regular expression of Python's.
#pragma once

#include <bitset>
#include <string>
#include <string_view>
#include <vector>

namespace mixtune {

// Matches as PEFT does: the whole of a module's name, or what follows one of its dots. Takes time in proportion to the
// name, whatever the expression.
class AdapterPattern {
 public:
  // Throws UserError where the expression is malformed, longer than 1,000 bytes, or has what is not read here: look-
  // around, references, counts in braces, flags.
  AdapterPattern(std::string_view expression, const std::string& where);

  bool matches(std::string_view name) const;

  // A step of the machine that follows all matches at once; jumps are relative.
  struct Step {
    enum Kind : uint8_t { kByte, kSplit, kBegin, kEnd } kind;
    std::bitset<256> bytes = {};  // of kByte
    int to = 1, other = 1;        // of kSplit
  };

 private:
  std::vector<Step> steps_;
};

}  // namespace mixtune
