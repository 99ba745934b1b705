#include "base/progress_line.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

#include "base/log.h"

namespace mixtune {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kShow{500};
constexpr std::chrono::seconds kPrint{10};

}  // namespace

ProgressLine::ProgressLine(std::string name) : name_(std::move(name)), printed_(Clock::now()) {}

ProgressLine::~ProgressLine() {
  if (on_terminal_) std::fputs("\r\x1b[K", stderr);
}

void ProgressLine::show(const std::string& line) {
  if (!logs(LogLevel::kInfo)) return;
  if (isatty(STDERR_FILENO)) {
    on_terminal_ = true;
    fmt::print(stderr, "\r\x1b[Kmixtune: {}: {}", name_, line);
    std::fflush(stderr);
    return;
  }
  const auto now = Clock::now();
  if (now - printed_ < kPrint) return;
  printed_ = now;
  log_line("mixtune", fmt::format("{}: {}", name_, line));
}

ByteProgress::ByteProgress(std::string name) : line_(std::move(name)), shown_(Clock::now()) {}

void ByteProgress::operator()(uint64_t done, uint64_t all) {
  const auto now = Clock::now();
  if (now - shown_ < kShow) return;
  shown_ = now;
  line_.show(fmt::format("{} of {}", format_bytes(done), format_bytes(all)));
}

}  // namespace mixtune
