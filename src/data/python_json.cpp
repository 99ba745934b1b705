#include "data/python_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace mixtune {

namespace {

constexpr int kMaxValueDepth = 200;
constexpr size_t kMaxDigits = 4300;  // of an integer: sys.get_int_max_str_digits()

// float.__repr__: the fewest digits that give the number back, with an exponent below 1e-4 and from 1e16 on.
std::string float_repr(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  const std::string text(buffer, end);
  const size_t e = text.find('e');
  const int exponent = std::stoi(text.substr(e + 1));
  const bool negative = text[0] == '-';
  std::string digits;
  for (const char c : text.substr(0, e))
    if (c >= '0' && c <= '9') digits += c;
  const auto count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    std::string mantissa = digits.substr(0, 1);
    if (count > 1) mantissa += "." + digits.substr(1);
    return fmt::format("{}{}e{}{:02}", negative ? "-" : "", mantissa, exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) {
    digits = "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  } else {
    if (count < exponent + 2) digits.append(static_cast<size_t>(exponent + 2 - count), '0');
    digits.insert(static_cast<size_t>(exponent + 1), ".");
  }
  return (negative ? "-" : "") + digits;
}

void append_utf8(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
  } else if (c < 0x10000) {
    out += {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
            static_cast<char>(0x80 | (c & 63))};
  } else {
    out += {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 63)),
            static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
  }
}

// Reads as json.loads does, and writes at once. Each function returns false where the text is not JSON.
class Dumper {
 public:
  explicit Dumper(std::string_view text) : text_(text) {}

  bool document(std::string& out) {
    skip_space();
    if (!value(out, 0)) return false;
    skip_space();
    return at_ == text_.size();
  }

 private:
  void skip_space() { at_ = std::min(text_.find_first_not_of(" \t\n\r", at_), text_.size()); }
  bool next_is(char c) const { return at_ < text_.size() && text_[at_] == c; }
  bool take(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  bool value(std::string& out, int depth) {
    if (depth > kMaxValueDepth) return false;
    if (next_is('{')) return object(out, depth);
    if (next_is('[')) return array(out, depth);
    if (next_is('"')) {
      std::string text;
      if (!string(text)) return false;
      out += quote_as_python(text);
      return true;
    }
    for (const std::string_view word : {"null", "true", "false", "NaN", "Infinity", "-Infinity"})
      if (take(word)) {
        out += word;
        return true;
      }
    return number(out);
  }

  bool array(std::string& out, int depth) {
    ++at_;
    out += '[';
    skip_space();
    if (take("]")) {
      out += ']';
      return true;
    }
    while (true) {
      skip_space();
      if (!value(out, depth + 1)) return false;
      skip_space();
      if (take("]")) break;
      if (!take(",")) return false;
      out += ", ";
    }
    out += ']';
    return true;
  }

  bool object(std::string& out, int depth) {
    ++at_;
    std::vector<std::pair<std::string, std::string>> members;
    std::unordered_map<std::string, size_t> places;
    skip_space();
    for (bool more = !take("}"); more;) {
      skip_space();
      std::string key, text;
      if (!next_is('"') || !string(key)) return false;
      skip_space();
      if (!take(":")) return false;
      skip_space();
      if (!value(text, depth + 1)) return false;
      if (const auto [place, is_new] = places.try_emplace(key, members.size()); !is_new)
        members[place->second].second = std::move(text);
      else
        members.emplace_back(std::move(key), std::move(text));
      skip_space();
      more = !take("}");
      if (more && !take(",")) return false;
    }
    out += '{';
    for (size_t i = 0; i < members.size(); ++i)
      out += fmt::format("{}{}: {}", i > 0 ? ", " : "", quote_as_python(members[i].first), members[i].second);
    out += '}';
    return true;
  }

  bool number(std::string& out) {
    const size_t begin = at_;
    const auto digits = [&] {
      const size_t from = at_;
      while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') ++at_;
      return at_ - from;
    };
    take("-");
    if (!take("0") && digits() == 0) return false;
    const size_t whole = at_;
    if (next_is('.')) {
      ++at_;
      if (digits() == 0) at_ = whole;  // as json.loads: the number ends before the point
    }
    const size_t fraction = at_;
    if (next_is('e') || next_is('E')) {
      ++at_;
      if (!take("+")) take("-");
      if (digits() == 0) at_ = fraction;
    }
    const std::string_view text = text_.substr(begin, at_ - begin);
    if (at_ == whole) {
      if (text.size() > kMaxDigits) return false;
      out += text == "-0" ? "0" : text;
      return true;
    }
    double number = 0;
    const auto result = std::from_chars(text.data(), text.data() + text.size(), number);
    if (result.ec == std::errc::result_out_of_range) {  // from_chars says the same of what is too large and too small
      const bool small = std::strtod(std::string(text).c_str(), nullptr) == 0;
      number = (small ? 0.0 : HUGE_VAL) * (text[0] == '-' ? -1 : 1);
    }
    out += float_repr(number);
    return true;
  }

  // The four hexadecimal digits of a \u, or -1.
  int32_t unit() {
    uint32_t c = 0;
    const char* begin = text_.data() + at_;
    if (text_.size() - at_ < 4) return -1;
    const auto [end, error] = std::from_chars(begin, begin + 4, c, 16);
    if (error != std::errc() || end != begin + 4) return -1;
    at_ += 4;
    return static_cast<int32_t>(c);
  }

  bool escape(std::string& out) {
    if (at_ == text_.size()) return false;
    const char c = text_[at_++];
    constexpr std::string_view kFrom = "\"\\/bfnrt", kTo = "\"\\/\b\f\n\r\t";
    if (const size_t i = kFrom.find(c); i != kFrom.npos) {
      out += kTo[i];
      return true;
    }
    if (c != 'u') return false;
    int32_t code = unit();
    if (code >= 0xD800 && code < 0xDC00) {
      if (!take("\\u")) return false;
      const int32_t low = unit();
      if (low < 0xDC00 || low > 0xDFFF) return false;
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code < 0 || (code >= 0xDC00 && code < 0xE000)) {
      return false;
    }
    append_utf8(out, static_cast<uint32_t>(code));
    return true;
  }

  bool string(std::string& out) {
    ++at_;
    while (at_ < text_.size()) {
      const char c = text_[at_++];
      if (c == '"') return true;
      if (static_cast<unsigned char>(c) < 0x20) return false;
      if (c != '\\')
        out += c;
      else if (!escape(out))
        return false;
    }
    return false;
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

std::optional<std::string> dump_as_python(std::string_view text) {
  std::string out;
  if (!Dumper(text).document(out)) return std::nullopt;
  return out;
}

std::string quote_as_python(std::string_view text) {
  constexpr std::string_view kFrom = "\"\\\b\f\n\r\t", kTo = "\"\\bfnrt";
  std::string out = "\"";
  for (const char c : text) {
    if (const size_t i = kFrom.find(c); i != kFrom.npos)
      out += {'\\', kTo[i]};
    else if (static_cast<unsigned char>(c) < 0x20)
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    else
      out += c;
  }
  return out + '"';
}

}  // namespace mixtune
