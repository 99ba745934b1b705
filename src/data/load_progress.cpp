#include "data/load_progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

#include "base/log.h"

namespace mixtune {

namespace {

constexpr std::chrono::milliseconds kSay{500};
constexpr std::chrono::seconds kPrint{10};

}  // namespace

LoadProgress::LoadProgress(std::string name, std::function<void(const std::string&)> say)
    : name_(std::move(name)),
      say_(std::move(say)),
      begin_(std::chrono::steady_clock::now()),
      said_(begin_),
      printed_(begin_) {}

LoadProgress::~LoadProgress() {
  if (on_terminal_) std::fputs("\r\x1b[K", stderr);
}

void LoadProgress::operator()(const DocumentTotals& done) {
  const auto now = std::chrono::steady_clock::now();
  if (now - said_ < kSay) return;
  said_ = now;
  const double seconds = std::chrono::duration<double>(now - begin_).count();
  const std::string line = fmt::format("{} records, {} tokens, {:.0f} tokens/s", done.records, done.tokens,
                                       static_cast<double>(done.tokens) / seconds);
  if (say_) say_(line);
  show(line);
}

void LoadProgress::show(const std::string& line) {
  if (!logs(LogLevel::kInfo)) return;
  if (isatty(STDERR_FILENO)) {
    on_terminal_ = true;
    fmt::print(stderr, "\r\x1b[Kmixtune: {}: {}", name_, line);
    std::fflush(stderr);
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (now - printed_ < kPrint) return;
  printed_ = now;
  log_line("mixtune", fmt::format("{}: {}", name_, line));
}

}  // namespace mixtune
