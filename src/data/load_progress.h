// LoadProgress: tells how far the tokenising of a data set has come.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "base/progress_line.h"
#include "data/documents.h"

namespace mixtune {

class LoadProgress {
 public:
  // `say` gets each line, at most one every half second; the line is shown, too.
  LoadProgress(std::string name, std::function<void(const std::string&)> say);

  void operator()(const DocumentTotals& done);

 private:
  ProgressLine line_;
  std::function<void(const std::string&)> say_;
  ProgressLine::Time begin_, said_;
};

}  // namespace mixtune
