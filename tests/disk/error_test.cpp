// Runs whose disk is full from a call on, or fails at one, or writes less than it is told.
#include "disk_runs.h"

namespace mixtune {
namespace {

struct Fault {
  const char *action, *reason;  // what the system says
};

void PrintTo(const Fault& fault, std::ostream* out) {
  *out << fault.action;
}

class DiskErrors : public DiskRuns, public testing::WithParamInterface<Fault> {
 protected:
  // Either the run ends well, or it fails and says in one line why.
  static void expect_clear(const Outcome& outcome) {
    if (outcome.code != 0) return expect_told(outcome, GetParam().reason);
    for (const std::string& line : lines_of(outcome.err)) EXPECT_TRUE(line.starts_with("mixtune: ")) << line;
    EXPECT_EQ(count_of(outcome.err, "mixtune: error: "), 0) << outcome.err;
  }
};

INSTANTIATE_TEST_SUITE_P(Disk, DiskErrors,
                         testing::Values(Fault{"enospc", "No space left on device"},
                                         Fault{"eio", "Input/output error"}),
                         [](const auto& fault) { return std::string(fault.param.action); });

TEST_P(DiskErrors, AtAnyCallAreToldAndMended) {
  ASSERT_EQ(run_counted(steps()).code, 0);
  int failed = 0;
  for (const Call& call : chosen(calls(), 2)) {
    SCOPED_TRACE(fmt::format("{} at call {}", GetParam().action, call.str()));
    begin_with("");
    const Outcome outcome = run_counted(steps(), GetParam().action, call.number);
    expect_clear(outcome);
    expect_sound(call.number, false);
    failed += outcome.code != 0;
    expect_resumes_to_the_end(outcome.err.find("without what is lost there") != outcome.err.npos);
    if (HasFailure()) return;
  }
  EXPECT_GT(failed, 0);
}

// To write less than one was told is no failure.
TEST_F(DiskRuns, AWriteThatIsShortIsGoneOnWith) {
  ASSERT_EQ(run_counted(steps()).code, 0);
  std::vector<Call> writes = calls();
  std::erase_if(writes, [](const Call& call) { return !call.name.ends_with("write"); });
  for (const Call& call : chosen(writes)) {
    SCOPED_TRACE("short at call " + call.str());
    begin_with("");
    const Outcome outcome = run_counted(steps(), "short", call.number);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    expect_whole();
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace mixtune
