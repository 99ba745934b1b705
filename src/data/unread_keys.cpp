#include "data/unread_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"

namespace mixtune {

namespace {

constexpr size_t kKept = 1000;  // keys told apart in a file
constexpr size_t kShown = 20;
constexpr size_t kNameBytes = 40;

}  // namespace

int64_t& UnreadKeys::slot(std::string_view key) {
  const auto at = counts_.find(key);
  return at == counts_.end() ? counts_[std::string(key)] : at->second;
}

void UnreadKeys::add(const UnreadKeys& more) {
  for (const auto& [key, count] : more.counts_)
    (counts_.size() < kKept || counts_.contains(key) ? slot(key) : others_) += count;
  others_ += more.others_;
}

std::string UnreadKeys::text() const {
  std::vector<std::pair<std::string_view, int64_t>> keys(counts_.begin(), counts_.end());
  std::ranges::stable_sort(keys, std::ranges::greater(), [](const auto& key) { return key.second; });
  std::string text;
  for (const auto& [key, count] : std::span(keys).first(std::min(keys.size(), kShown)))
    text += fmt::format("{}{} ({})", text.empty() ? "" : ", ", printable(key, kNameBytes), count);
  if (others_ > 0) return text + ", and many more";
  return keys.size() > kShown ? fmt::format("{}, and {} more", text, keys.size() - kShown) : text;
}

}  // namespace mixtune
