// What a run ran on, for its output folder.
#pragma once

#include <cstdint>
#include <string>

namespace mixtune {

inline constexpr const char* kPeakOfMfu = "mfu is of";  // the name of `peak` there

struct Environment {
  std::string device;  // "the CPU, fp32"
  std::string layout;  // of several ranks; "" of one
  std::string peak;    // what mfu is of; "" where none is told
  int64_t parameters = 0;
  int64_t first_step = 1;  // of this process
};

// A JSON object of it, this host, this version of mixtune and the time.
std::string print_environment(const Environment& environment);

}  // namespace mixtune
