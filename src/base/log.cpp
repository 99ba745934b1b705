#include "base/log.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>

#include "base/error.h"

namespace mixtune {

bool logs(LogLevel level) {
  const char* value = std::getenv(kLogVariable);
  const std::string_view least = value ? value : "";
  return level >= (least == "error" ? LogLevel::kError : least == "warning" ? LogLevel::kWarning : LogLevel::kInfo);
}

void log_line(std::string_view prefix, std::string_view text) {
  const char* clear = isatty(STDERR_FILENO) ? "\r\x1b[K" : "";
  const std::string line = fmt::format("{}{}: {}\n", clear, prefix, text);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

namespace {

std::mutex record_mutex;
std::vector<LogRecord::Line>* record = nullptr;  // of the one LogRecord that there may be

}  // namespace

LogRecord::LogRecord() {
  const std::lock_guard lock(record_mutex);
  MT_CHECK(record == nullptr);
  record = &lines_;
}

LogRecord::~LogRecord() {
  const std::lock_guard lock(record_mutex);
  record = nullptr;
}

std::vector<LogRecord::Line> LogRecord::lines() const {
  const std::lock_guard lock(record_mutex);
  return lines_;
}

bool is_heard(LogLevel level) {
  const std::lock_guard lock(record_mutex);
  return record != nullptr || logs(level);
}

void log_text(LogLevel level, std::string_view text) {
  {
    const std::lock_guard lock(record_mutex);
    if (record != nullptr && record->size() < LogRecord::kMostLines) record->push_back({level, std::string(text)});
  }
  if (logs(level)) log_line(level == LogLevel::kInfo ? "mixtune" : "mixtune: warning", text);
}

std::string format_bytes(uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

}  // namespace mixtune
