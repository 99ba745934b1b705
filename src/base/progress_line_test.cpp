#include "base/progress_line.h"

#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <cstdio>
#include <stdexcept>
#include <thread>
#include <utility>

namespace mixtune {
namespace {

// Makes standard error a terminal of its own, and tells what was printed there.
class Terminal {
 public:
  Terminal() {
    std::fflush(stderr);
    if (openpty(&shown_, &printed_, nullptr, nullptr, nullptr) != 0) throw std::runtime_error("no terminal");
    dup2(printed_, STDERR_FILENO);
  }
  ~Terminal() {
    restore();
    close(shown_);
    close(kept_);
    if (printed_ >= 0) close(printed_);
  }
  // All of it: the terminal hands over what it has piece by piece, and ends once nobody prints any more.
  std::string take() {
    restore();
    close(std::exchange(printed_, -1));
    std::string all;
    char text[1000];
    for (ssize_t n; (n = read(shown_, text, sizeof(text))) > 0;) all.append(text, static_cast<size_t>(n));
    return all;
  }

 private:
  void restore() const {
    std::fflush(stderr);
    dup2(kept_, STDERR_FILENO);
  }

  const int kept_ = dup(STDERR_FILENO);
  int shown_ = -1, printed_ = -1;
};

TEST(ProgressLineTest, StandsInItsPlaceAndGoesAway) {
  Terminal terminal;
  {
    ProgressLine line("name");
    line.show("1 of 2");
    line.show("2 of 2");
  }
  EXPECT_EQ(terminal.take(), "\r\x1b[Kmixtune: name: 1 of 2\r\x1b[Kmixtune: name: 2 of 2\r\x1b[K");
}

TEST(ProgressLineTest, SaysNothingOfWhatTakesNotLong) {
  testing::internal::CaptureStderr();
  ProgressLine("name").show("1 of 2");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(ProgressLineTest, OfBytes) {
  Terminal terminal;
  {
    ByteProgress progress("name");
    progress(1, 3 << 20);
    std::this_thread::sleep_for(std::chrono::milliseconds(600));
    progress(1 << 20, 3 << 20);
    progress(2 << 20, 3 << 20);
  }
  EXPECT_EQ(terminal.take(), "\r\x1b[Kmixtune: name: 1.0 MiB of 3.0 MiB\r\x1b[K");
}

}  // namespace
}  // namespace mixtune
