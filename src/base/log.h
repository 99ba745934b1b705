// Messages to the person who runs the program: standard error, one line each.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace mixtune {

// The environment variable that says what is printed: "info" (or nothing of the sort), "warning" or "error".
constexpr const char* kLogVariable = "MIXTUNE_LOG";
enum class LogLevel { kInfo, kWarning, kError };
bool logs(LogLevel level);

// Prints "mixtune: TEXT". A live progress line on the terminal is cleared first.
void log_line(std::string_view prefix, std::string_view text);

template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  if (logs(LogLevel::kInfo)) log_line("mixtune", fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  if (logs(LogLevel::kWarning)) log_line("mixtune: warning", fmt::format(format, std::forward<Args>(args)...));
}

// "1.5 GiB", "12 KiB"
std::string format_bytes(uint64_t bytes);

}  // namespace mixtune
