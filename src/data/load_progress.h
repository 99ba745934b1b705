// LoadProgress: tells how far the tokenising of a data set has come.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "data/documents.h"

namespace mixtune {

class LoadProgress {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // `say` gets each line, at most one every half second. On a terminal the line is printed over and over in its place,
  // elsewhere every 10 seconds.
  LoadProgress(std::string name, std::function<void(const std::string&)> say);
  ~LoadProgress();  // removes the line from the terminal
  LoadProgress(const LoadProgress&) = delete;
  LoadProgress& operator=(const LoadProgress&) = delete;

  void operator()(const DocumentTotals& done);
  // Shows a line that another process made.
  void show(const std::string& line);

 private:
  std::string name_;
  std::function<void(const std::string&)> say_;
  Time begin_, said_, printed_;
  bool on_terminal_ = false;
};

}  // namespace mixtune
