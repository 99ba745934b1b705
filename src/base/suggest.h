// Suggestions for a name that does not exist.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

namespace mixtune {

size_t edit_distance(std::string_view a, std::string_view b);  // Levenshtein's
std::string digits_of(std::string_view word);

// The candidate nearest to `word` by edit distance, or "" where none is so near that `word` must be a slip of the pen:
// at most 2 edits, at most one for every three letters begun, and the same digits (fp64 is not a misspelt fp32).
template <class Candidates>
std::string nearest_name(std::string_view word, const Candidates& candidates) {
  std::string best;
  size_t best_distance = std::min<size_t>(2, (word.size() + 2) / 3) + 1;
  for (const auto& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance && digits_of(word) == digits_of(candidate)) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace mixtune
