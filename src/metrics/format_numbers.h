// How records' numbers are shown to people.
#pragma once

#include <string>

namespace mixtune {

// "1,234,567"; "-" where it is not finite.
std::string grouped(double number);
// A step's time with about three digits.
std::string step_time(double milliseconds);
// "590 TFLOP/s", "3.4 TFLOP/s", "93 GFLOP/s"
std::string flops_rate(double tflops);
// "4:05", "1:02:03", "2d 03:04"
std::string duration_text(double seconds);

}  // namespace mixtune
