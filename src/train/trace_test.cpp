#include "train/trace.h"

#include <gtest/gtest.h>

#include "base/json_value.h"

namespace mixtune {
namespace {

nlohmann::json events(const std::vector<Profiler::Part>& parts) {
  return nlohmann::json::parse(chrome_trace(parts))["traceEvents"];
}

double end(const nlohmann::json& event) {
  return event["ts"].get<double>() + event["dur"].get<double>();
}

TEST(ChromeTrace, IsInMicroseconds) {
  const auto trace = events({{"step", 0, 0.5, 2}, {"qkv", 1, 0.75, 1.25}});
  ASSERT_EQ(trace.size(), 2u);
  EXPECT_EQ(trace[0]["name"], "step");
  EXPECT_EQ(trace[0]["ts"], 500);
  EXPECT_EQ(trace[0]["dur"], 2000);
  EXPECT_EQ(trace[1]["ts"], 750);
  EXPECT_EQ(trace[1]["dur"], 1250);
}

// A GPU's clock may give such floats.
TEST(ChromeTrace, EventsStayWithinThoseAroundThem) {
  const auto trace = events({{"step", 0, 1, 10},
                             {"early", 1, 0.9, 4},
                             {"inner", 2, 1.5, 9},
                             {"overlapping", 1, 4.8, 7},
                             {"late", 1, 11.2, 0.1},
                             {"next", 0, 10.9, 1}});
  EXPECT_EQ(trace[1]["ts"], 1000);
  EXPECT_EQ(end(trace[2]), end(trace[1]));
  EXPECT_EQ(trace[3]["ts"], end(trace[1]));
  EXPECT_EQ(end(trace[3]), end(trace[0]));
  EXPECT_EQ(trace[4]["dur"], 0);
  EXPECT_EQ(trace[5]["ts"], end(trace[0]));
}

TEST(Trace, HoldsWhatRanWhileItWasThere) {
  Stack stack("test", Device{}, 4096);
  Ctx ctx{Device{}, stack, stack};
  {
    Trace trace(ctx);
    const Range range(ctx, "work");
    EXPECT_NE(ctx.profiler, nullptr);
  }
  EXPECT_EQ(ctx.profiler, nullptr);
}

}  // namespace
}  // namespace mixtune
