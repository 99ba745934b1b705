#include "checkpoint/adapter_pattern.h"

#include <fmt/format.h>

#include <cctype>
#include <cstddef>
#include <utility>

#include "base/error.h"

namespace mixtune {

namespace {

using Step = AdapterPattern::Step;
using Steps = std::vector<Step>;

constexpr size_t kMostPatternBytes = 1000;
constexpr int kMostPatternDepth = 32;

Step split(int to, int other) {
  return {.kind = Step::kSplit, .to = to, .other = other};
}

void append_steps(Steps& steps, const Steps& more) {
  steps.insert(steps.end(), more.begin(), more.end());
}

template <class F>
std::bitset<256> bytes_that(F&& wanted) {
  std::bitset<256> bytes;
  for (int c = 0; c < 256; ++c) bytes[static_cast<size_t>(c)] = wanted(c);
  return bytes;
}

std::bitset<256> one_byte(char c) {
  return std::bitset<256>().set(static_cast<unsigned char>(c));
}

std::bitset<256> any_byte() {
  return ~one_byte('\n');
}

// Reads an expression from left to right, into steps.
class PatternReader {
 public:
  PatternReader(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  Steps read() {
    if (text_.size() > kMostPatternBytes) fail(fmt::format("has more than {} bytes", kMostPatternBytes));
    Steps steps = alternatives(0);
    if (at_ < text_.size()) fail("has a ')' too many");
    return steps;
  }

 private:
  [[noreturn]] void fail(std::string_view what) const {
    throw UserError(where_, fmt::format("pattern '{}' {}", printable(text_), what),
                    "write the modules' names in rank_pattern and alpha_pattern out");
  }

  bool takes(char c) {
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  char next() {
    if (at_ == text_.size()) fail("ends too early");
    return text_[at_++];
  }

  Steps alternatives(int depth) {
    if (depth > kMostPatternDepth) fail("nests too deeply");
    Steps steps = sequence(depth);
    while (takes('|')) {
      const Steps other = sequence(depth);
      Steps both = {split(1, static_cast<int>(steps.size()) + 2)};
      append_steps(both, steps);
      const int over = static_cast<int>(other.size()) + 1;
      both.push_back(split(over, over));
      append_steps(both, other);
      steps = std::move(both);
    }
    return steps;
  }

  Steps sequence(int depth) {
    Steps steps;
    while (at_ < text_.size() && text_[at_] != '|' && text_[at_] != ')') append_steps(steps, repeated(item(depth)));
    return steps;
  }

  Steps repeated(const Steps& once) {
    const int size = static_cast<int>(once.size());
    Steps steps;
    if (takes('*')) {
      steps = {split(1, size + 2)};
      append_steps(steps, once);
      steps.push_back(split(-size - 1, -size - 1));
    } else if (takes('+')) {
      steps = once;
      steps.push_back(split(-size, 1));
    } else if (takes('?')) {
      steps = {split(1, size + 1)};
      append_steps(steps, once);
    } else {
      return once;
    }
    takes('?');  // the shortest match first: the same names
    return steps;
  }

  Steps item(int depth) {
    const char c = next();
    if (c == '(') return group(depth);
    if (c == '^') return {{.kind = Step::kBegin}};
    if (c == '$') return {{.kind = Step::kEnd}};
    if (c == '[') return {{.kind = Step::kByte, .bytes = byte_class()}};
    if (c == '.') return {{.kind = Step::kByte, .bytes = any_byte()}};
    if (c == '\\') return {{.kind = Step::kByte, .bytes = escaped()}};
    if (c == '*' || c == '+' || c == '?') fail("repeats nothing, or a repetition");
    if (c == '{') fail("has a '{', which is not read here");
    return {{.kind = Step::kByte, .bytes = one_byte(c)}};
  }

  Steps group(int depth) {
    if (takes('?') && !takes(':')) fail("has a '(?', which is not read here");
    Steps steps = alternatives(depth + 1);
    if (!takes(')')) fail("lacks a ')'");
    return steps;
  }

  std::bitset<256> escaped() {
    const char c = next();
    const auto kind = [&](auto&& wanted) {
      return std::isupper(static_cast<unsigned char>(c)) ? ~bytes_that(wanted) : bytes_that(wanted);
    };
    if (c == 'd' || c == 'D') return kind([](int b) { return b >= '0' && b <= '9'; });
    if (c == 's' || c == 'S') return kind([](int b) { return b == ' ' || (b >= '\t' && b <= '\r'); });
    if (c == 'w' || c == 'W') return kind([](int b) { return b == '_' || (b < 128 && std::isalnum(b)); });
    if (std::isalnum(static_cast<unsigned char>(c))) fail(fmt::format("has a '\\{}', which is not read here", c));
    return one_byte(c);
  }

  std::bitset<256> byte_class() {
    const bool negated = takes('^');
    std::bitset<256> bytes;
    for (bool first = true; first || !takes(']'); first = false) {
      const char c = next();
      if (c == '\\') {
        bytes |= escaped();
        continue;
      }
      if (at_ + 1 >= text_.size() || text_[at_] != '-' || text_[at_ + 1] == ']') {
        bytes |= one_byte(c);
        continue;
      }
      ++at_;
      const char last = next();
      if (last == '\\' || static_cast<unsigned char>(last) < static_cast<unsigned char>(c)) fail("has a bad range");
      bytes |= bytes_that(
          [&](int b) { return b >= static_cast<unsigned char>(c) && b <= static_cast<unsigned char>(last); });
    }
    return negated ? ~bytes : bytes;
  }

  std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
};

// The steps that the machine stands at between two bytes.
class StepSet {
 public:
  StepSet(const Steps& steps, size_t name_size) : steps_(&steps), name_size_(name_size), is_in_(steps.size() + 1) {}

  // Adds a step, and what it leads to without a byte, `place` bytes into the name.
  void add(size_t step, size_t place) {
    std::vector<size_t> open = {step};
    while (!open.empty()) {
      const size_t at = open.back();
      open.pop_back();
      if (is_in_[at]) continue;
      is_in_[at] = true;
      members_.push_back(at);
      if (at == steps_->size()) continue;
      const Step& s = (*steps_)[at];
      if (s.kind == Step::kSplit) {
        open.push_back(at + static_cast<size_t>(s.to));
        open.push_back(at + static_cast<size_t>(s.other));
      }
      if ((s.kind == Step::kBegin && place == 0) || (s.kind == Step::kEnd && place == name_size_))
        open.push_back(at + 1);
    }
  }

  const std::vector<size_t>& members() const { return members_; }
  bool is_done() const { return is_in_.back(); }

 private:
  const Steps* steps_;
  size_t name_size_;
  std::vector<bool> is_in_;
  std::vector<size_t> members_;
};

}  // namespace

AdapterPattern::AdapterPattern(std::string_view expression, const std::string& where) {
  const Steps own = PatternReader(expression, where).read();
  // Optionally anything up to a dot, then the expression, then the end.
  steps_ = {split(1, 5),
            split(1, 3),
            {.kind = Step::kByte, .bytes = any_byte()},
            split(-2, -2),
            {.kind = Step::kByte, .bytes = one_byte('.')}};
  append_steps(steps_, own);
  steps_.push_back({.kind = Step::kEnd});
}

bool AdapterPattern::matches(std::string_view name) const {
  StepSet now(steps_, name.size());
  now.add(0, 0);
  for (size_t i = 0; i < name.size(); ++i) {
    StepSet next(steps_, name.size());
    for (const size_t at : now.members())
      if (at < steps_.size() && steps_[at].kind == Step::kByte && steps_[at].bytes[static_cast<unsigned char>(name[i])])
        next.add(at + 1, i + 1);
    now = std::move(next);
  }
  return now.is_done();
}

}  // namespace mixtune
