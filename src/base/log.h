// Messages to the person who runs the program: standard error, one line each.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mixtune {

// The environment variable that says what to print: "info" (and any other text), "warning" or "error".
constexpr const char* kLogVariable = "MIXTUNE_LOG";
enum class LogLevel { kInfo, kWarning, kError };
bool logs(LogLevel level);

// Prints "mixtune: TEXT". A live progress line on the terminal is cleared first.
void log_line(std::string_view prefix, std::string_view text);

// Whether the level is printed, or recorded (LogRecord).
bool is_heard(LogLevel level);
void log_text(LogLevel level, std::string_view text);

template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  if (is_heard(LogLevel::kInfo)) log_text(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  if (is_heard(LogLevel::kWarning)) log_text(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}

// Records what is logged, on any thread, printed or not, while it lives: at most kMostLines. Only one may live at a
// time.
class LogRecord {
 public:
  struct Line {
    LogLevel level;
    std::string text;
  };
  static constexpr size_t kMostLines = 1000;

  LogRecord();
  ~LogRecord();
  LogRecord(const LogRecord&) = delete;
  LogRecord& operator=(const LogRecord&) = delete;

  std::vector<Line> lines() const;

 private:
  std::vector<Line> lines_;
};

// "1.5 GiB", "12 KiB"
std::string format_bytes(uint64_t bytes);

}  // namespace mixtune
