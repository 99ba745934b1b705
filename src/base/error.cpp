#include "base/error.h"

#include <fmt/format.h>

#include <algorithm>

namespace mixtune {

namespace {

std::string one_line(std::string_view where, std::string_view what, std::string_view mend) {
  std::string line;
  if (!where.empty()) line += fmt::format("{}: ", where);
  line += what;
  if (!mend.empty()) line += fmt::format("; {}", mend);
  return line;
}

// The length of the well-formed UTF-8 sequence that starts at text[i], or 0 (table 3-7 of the Unicode standard).
size_t utf8_length(std::string_view text, size_t i) {
  const auto byte = [&](size_t j) {
    return j < text.size() ? static_cast<unsigned char>(text[j]) : 0u;
  };
  const unsigned lead = byte(i), second = byte(i + 1);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  if ((lead == 0xE0 && second < 0xA0) || (lead == 0xF0 && second < 0x90)) return 0;  // overlong
  if ((lead == 0xED && second > 0x9F) || (lead == 0xF4 && second > 0x8F)) return 0;  // surrogate, beyond Unicode
  const size_t n = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  for (size_t j = 1; j < n; ++j)
    if ((byte(i + j) & 0xC0) != 0x80) return 0;
  return n;
}

}  // namespace

Error::Error(std::string_view where, std::string_view what, std::string_view mend, ExitCode code)
    : std::runtime_error(one_line(where, what, mend)), code_(code) {}

std::string printable_path(std::string_view path) {
  return printable(path, 400);
}

std::string printable(std::string_view text, size_t limit) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    if (out.size() >= limit) return out + "...";
    const auto c = static_cast<unsigned char>(text[i]);
    const size_t n = c < 0x20 || c == 0x7F ? 0 : utf8_length(text, i);
    if (n > 0)
      out += text.substr(i, n);
    else
      out += fmt::format("\\x{:02x}", c);
    i += std::max<size_t>(n, 1);
  }
  return out;
}

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const size_t n = utf8_length(text, i);
    if (n == 0) return false;
    i += n;
  }
  return true;
}

void check_failed(const char* condition, const char* file, int line) {
  throw std::logic_error(
      fmt::format("internal error at {}:{}: {} is false; please report this", file, line, condition));
}

}  // namespace mixtune
