#include "data/added_tokens.h"

#include <algorithm>
#include <span>
#include <utility>

namespace mixtune {

namespace {

// The length of the white space, one character, that `text` begins with; 0 where it begins with another.
size_t space_at(std::string_view text, bool blanks) {
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  if (text.empty()) return 0;
  if ((byte(0) == ' ' && blanks) || (byte(0) >= '\t' && byte(0) <= '\r')) return 1;
  if (byte(0) == 0xC2) return byte(1) == 0x85 || byte(1) == 0xA0 ? 2 : 0;
  const uint32_t bytes = byte(0) << 16 | byte(1) << 8 | byte(2);
  const bool of_three = bytes == 0xE19A80 || (bytes >= 0xE28080 && bytes <= 0xE2808A) || bytes == 0xE280A8 ||
                        bytes == 0xE280A9 || bytes == 0xE280AF || bytes == 0xE2819F || bytes == 0xE38080;
  return of_three ? 3 : 0;
}

}  // namespace

size_t leading_space(std::string_view text, bool blanks) {
  size_t length = 0;
  while (const size_t one = space_at(text.substr(length), blanks)) length += one;
  return length;
}

size_t trailing_space(std::string_view text, bool blanks) {
  size_t begin = text.size();
  const auto ends_before = [&](size_t size) {
    return begin >= size && space_at(text.substr(begin - size), blanks) == size;
  };
  while (true) {
    const size_t one = ends_before(1) ? 1 : ends_before(2) ? 2 : ends_before(3) ? 3 : 0;
    if (one == 0) return text.size() - begin;
    begin -= one;
  }
}

NameFinder::NameFinder(std::vector<std::pair<std::string, size_t>> names) : names_(std::move(names)) {
  std::ranges::sort(names_);
  for (const auto& [name, number] : names_) first_[static_cast<unsigned char>(name.front())] = true;
}

std::optional<NameFinder::Match> NameFinder::find(std::string_view text, size_t from) const {
  if (empty()) return {};
  for (size_t at = from; at < text.size(); ++at)
    if (first_[static_cast<unsigned char>(text[at])])
      if (const auto match = longest_at(text, at)) return match;
  return {};
}

std::optional<NameFinder::Match> NameFinder::longest_at(std::string_view text, size_t at) const {
  std::optional<Match> longest;
  std::span<const std::pair<std::string, size_t>> candidates = names_;  // those that begin as the text does
  for (size_t i = 0; at + i < text.size() && !candidates.empty(); ++i) {
    const auto byte = [i](const auto& item) {
      return static_cast<unsigned char>(item.first[i]);
    };
    const auto wanted = static_cast<unsigned char>(text[at + i]);
    const auto begin = std::ranges::lower_bound(candidates, wanted, {}, byte);
    const auto end = std::ranges::upper_bound(candidates, wanted, {}, byte);
    candidates = candidates.subspan(static_cast<size_t>(begin - candidates.begin()), static_cast<size_t>(end - begin));
    for (; !candidates.empty() && candidates.front().first.size() == i + 1; candidates = candidates.subspan(1))
      longest = {at, at + i + 1, candidates.front().second};
  }
  return longest;
}

}  // namespace mixtune
