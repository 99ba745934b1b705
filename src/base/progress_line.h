// ProgressLine: tells on standard error how far something that takes long has come.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

namespace mixtune {

class ProgressLine {
 public:
  using Time = std::chrono::steady_clock::time_point;

  explicit ProgressLine(std::string name);
  ~ProgressLine();  // removes the line from the terminal
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // Prints "mixtune: NAME: LINE": on a terminal over and over in its place, elsewhere every 10 seconds. Nothing where
  // the log has no infos.
  void show(const std::string& line);

 private:
  const std::string name_;
  Time printed_;
  bool on_terminal_ = false;
};

// Is told how many bytes of all are done.
using BytesDone = std::function<void(uint64_t done, uint64_t all)>;

// Shows them, at most every half second.
class ByteProgress {
 public:
  explicit ByteProgress(std::string name);
  void operator()(uint64_t done, uint64_t all);

 private:
  ProgressLine line_;
  ProgressLine::Time shown_;
};

}  // namespace mixtune
