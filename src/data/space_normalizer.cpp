#include "data/space_normalizer.h"

#include <algorithm>
#include <utility>

namespace mixtune {

SpaceNormalizer::SpaceNormalizer(std::vector<Step> steps)
    : steps_(std::move(steps)), replaces_spaces_(std::ranges::find(steps_, Step::kReplaceSpaces) != steps_.end()) {}

size_t SpaceNormalizer::prefix(std::string_view text) const {
  size_t marks = 0;
  bool replaced = false;
  for (const Step step : steps_) {
    const bool begins_with_mark = marks > 0 || text.starts_with(kSpaceMark) || (replaced && text.starts_with(' '));
    if (step == Step::kReplaceSpaces) replaced = true;
    if (step == Step::kPrepend ? !text.empty() : step == Step::kDoubleFirst && begins_with_mark) ++marks;
  }
  return marks;
}

MarkedText::MarkedText(std::string_view text, size_t prefix, bool replaces_spaces)
    : text_(text), replaces_spaces_(replaces_spaces), at_(prefix * kSpaceMark.size()) {
  const auto spaces = replaces_spaces ? static_cast<size_t>(std::ranges::count(text, ' ')) : 0;
  marked_.reserve(at_ + text.size() + spaces * (kSpaceMark.size() - 1));
  for (size_t i = 0; i < prefix; ++i) marked_ += kSpaceMark;
  for (const char byte : text) {
    if (byte == ' ' && replaces_spaces)
      marked_ += kSpaceMark;
    else
      marked_ += byte;
  }
}

size_t MarkedText::begin_of(size_t at) {
  const auto width = [&] {
    return text_[from_] == ' ' && replaces_spaces_ ? kSpaceMark.size() : 1;
  };
  for (; from_ < text_.size() && at_ + width() <= at; ++from_) at_ += width();
  return from_;
}

}  // namespace mixtune
