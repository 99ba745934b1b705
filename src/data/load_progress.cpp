#include "data/load_progress.h"

#include <fmt/format.h>

#include <utility>

namespace mixtune {

namespace {

constexpr std::chrono::milliseconds kSay{500};

}  // namespace

LoadProgress::LoadProgress(std::string name, std::function<void(const std::string&)> say)
    : line_(std::move(name)), say_(std::move(say)), begin_(std::chrono::steady_clock::now()), said_(begin_) {}

void LoadProgress::operator()(const DocumentTotals& done) {
  const auto now = std::chrono::steady_clock::now();
  if (now - said_ < kSay) return;
  said_ = now;
  const double seconds = std::chrono::duration<double>(now - begin_).count();
  const std::string line = fmt::format("{} records, {} tokens, {:.0f} tokens/s", done.records, done.tokens,
                                       static_cast<double>(done.tokens) / seconds);
  if (say_) say_(line);
  line_.show(line);
}

}  // namespace mixtune
