// Scale: where a number stands on an axis, and the round numbers that are written there.
#pragma once

#include <string>
#include <vector>

namespace mixtune {

class Scale {
 public:
  enum class Kind {
    kLinear,
    kWhole,  // of whole numbers, such as steps: no tick between two of them
    kLog,    // of positive numbers
  };

  struct Ends {
    double least, most;
  };

  // Of the numbers between two, which are finite; `places`: where these stand. Where both numbers are the same there is
  // room around them.
  Scale(Kind kind, const Ends& numbers, const Ends& places);

  // Widens it to whole ticks, which it then has; a log scale by a tenth.
  Scale rounded() const;

  Kind kind() const { return kind_; }
  double place(double number) const;  // within the axis, whatever the number
  // At least one and at most about twice `wanted`, ascending; on a log scale powers of ten, or what is round between.
  std::vector<double> ticks(int wanted) const;

 private:
  double step(int wanted) const;

  Kind kind_;
  double least_, most_, from_, to_;
  double step_ = 0;  // between ticks; 0: as many as are wanted
};

// How a tick is written: short, and apart from its neighbours'. "0.25", "1,200", "12k", "1.5e-4".
std::string tick_label(double tick, const std::vector<double>& ticks);
// A number in a text, to about four digits: "3.434", "12,345", "1.5e-4".
std::string short_number(double number);

}  // namespace mixtune
