#include "base/duration.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace mixtune {
namespace {

TEST(Duration, AsPeopleAndSlurmWriteThem) {
  EXPECT_EQ(parse_duration("90s"), 90);
  EXPECT_EQ(parse_duration("45m"), 2700);
  EXPECT_EQ(parse_duration("1.5h"), 5400);
  EXPECT_EQ(parse_duration("2d"), 172800);
  EXPECT_EQ(parse_duration("30:00"), 1800);
  EXPECT_EQ(parse_duration("2:30:00"), 9000);
  EXPECT_EQ(parse_duration("1-12:00:00"), 129600);
}

TEST(Duration, NothingElseIsOne) {
  for (const char* text : {"", "90", "s", "x", "1w", "-1s", "1:-2", "nan s", "infs", "1e999s", "1:2:3:4", ":",
                           "1:", "1-2", "2-", "1:2m", "0x10s", " 1s", "99999999999s"})
    EXPECT_THROW(parse_duration(text), UserError) << text;
}

}  // namespace
}  // namespace mixtune
