#include "run/event_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <vector>

#include "base/staged.h"
#include "checkpoint/test_model.h"
#include "metrics/event_file.h"
#include "run/output_folder.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;

// The whole of an event file with these steps, of a run that began or went on at `first`.
std::string events_of(const std::vector<int64_t>& steps, int64_t first = 1) {
  std::string bytes = framed(opening_event(1e9)) + framed(session_event(1e9, first));
  for (const int64_t step : steps) bytes += framed(summary_event(1e9, step, std::vector<Scalar>{{"loss", 1.0f}}));
  return bytes;
}

class RunEvents : public testing::Test {
 protected:
  void SetUp() override { fs::create_directory(runs_); }

  std::string in_runs(const std::string& name) const { return runs_ + "/" + name; }

  TempFolder folder_;
  const std::string runs_ = folder_ / "runs";
  const std::string first_ = in_runs("events.out.tfevents.1000000000.host.7.0"),
                    second_ = in_runs("events.out.tfevents.1000000009.host.7.0");
};

TEST_F(RunEvents, AreCutAfterAStep) {
  const std::string kept = events_of({1, 2, 2});
  const std::string later = framed(summary_event(1e9, 3, std::vector<Scalar>{{"loss", 1.0f}}));
  for (const std::string& rest : {std::string(), later, later + later, later.substr(0, later.size() - 1),
                                  std::string("\0\1", 2), "junk" + later}) {
    put(first_, kept + rest);
    cut_event_files(runs_, 2);
    EXPECT_TRUE(get(first_) == kept) << rest.size();
  }
}

TEST_F(RunEvents, FilesWithoutAnEarlierStepGo) {
  put(first_, events_of({1, 2, 3, 4}));
  put(second_, events_of({4, 5}, 4));
  cut_event_files(runs_, 3);
  EXPECT_TRUE(get(first_) == events_of({1, 2, 3}));
  EXPECT_EQ(entries(runs_), std::vector<std::string>{fs::path(first_).filename()});
}

TEST_F(RunEvents, OfARunThatWentOnBeforeAreKept) {
  put(first_, events_of({1, 2, 3}));
  put(second_, events_of({4, 5}, 4));
  cut_event_files(runs_, 4);
  EXPECT_TRUE(get(first_) == events_of({1, 2, 3}));
  EXPECT_TRUE(get(second_) == events_of({4}, 4));
}

// Another program's, by name or by content, and what links lead to.
TEST_F(RunEvents, WhatNoRunWroteIsLeftAlone) {
  std::string foreign = events_of({1, 2, 3});
  foreign.replace(foreign.find("mixtune"), 7, "another");  // its checksum is wrong, too
  const std::string theirs = framed(summary_event(1e9, 9, {}));
  put(in_runs("events.out.tfevents.1000000001.host.7.0"), foreign);
  put(in_runs("events.out.tfevents.1000000002.host.7.0"), theirs);
  put(in_runs("events.out.tfevents.1000000003.host.7.0"), "");
  put(in_runs("events.out.tfevents.10000000.host"), events_of({9}));
  put(in_runs("events.out.tfevents.-000000001.host"), events_of({9}));
  put(in_runs("notes"), events_of({9}));
  put(folder_ / "precious", events_of({9}));
  fs::create_symlink(folder_ / "precious", in_runs("events.out.tfevents.1000000004.host.7.0"));
  fs::create_directory(in_runs("events.out.tfevents.1000000005.host.7.0"));
  const std::vector<std::string> before = entries(runs_);
  cut_event_files(runs_, 2);
  remove_event_files(runs_);
  EXPECT_FALSE(has_event_files(runs_));
  EXPECT_EQ(entries(runs_), before);
  EXPECT_TRUE(get(in_runs("events.out.tfevents.1000000001.host.7.0")) == foreign);
  EXPECT_TRUE(get(in_runs("events.out.tfevents.1000000002.host.7.0")) == theirs);
  EXPECT_TRUE(get(folder_ / "precious") == events_of({9}));
}

TEST_F(RunEvents, NothingHappensWhereThereIsNoFolder) {
  for (const std::string& path : {folder_ / "none", folder_ / "file", folder_ / "link"}) {
    if (path == folder_ / "file") put(path, "x");
    if (path == folder_ / "link") fs::create_directory_symlink(runs_, path);
    put(first_, events_of({9}));
    cut_event_files(path, 1);
    remove_event_files(path);
    EXPECT_FALSE(has_event_files(path));
    EXPECT_TRUE(fs::exists(first_));
  }
}

TEST_F(RunEvents, AreRemovedAndTheirFolderToo) {
  put(first_, events_of({1}));
  put(second_, events_of({}));
  put(in_runs(".events.out.tfevents.1.tmp-" + host_name() + "-999999999-0123456789abcdef"), "x");
  EXPECT_TRUE(has_event_files(runs_));
  put(in_runs("notes"), "x");
  remove_event_files(runs_);
  EXPECT_EQ(entries(runs_), std::vector<std::string>{"notes"});
  fs::remove(in_runs("notes"));
  put(first_, events_of({1}));
  remove_event_files(runs_);
  EXPECT_FALSE(fs::exists(runs_));
}

// Whatever the clocks of the hosts say.
TEST_F(RunEvents, ANewFileSortsAfterAllOthers) {
  fs::remove(runs_);
  const std::string now = new_event_file(runs_);
  EXPECT_EQ(fs::path(now).filename().string().find("events.out.tfevents.1"), 0u) << now;
  EXPECT_TRUE(now.ends_with(fmt::format(".{}.{}.0", host_name(), getpid()))) << now;
  put(now, "");
  const std::string next = new_event_file(runs_);
  EXPECT_LT(now, next);
  put(in_runs("events.out.tfevents.4000000000.zzz.1.0"), "");
  EXPECT_EQ(fs::path(new_event_file(runs_)).filename(),
            fmt::format("events.out.tfevents.4000000001.{}.{}.0", host_name(), getpid()));
}

TEST_F(RunEvents, AFolderThatIsNoneIsRefusedBeforeTheRun) {
  const std::string out = folder_ / "out";
  fs::create_directory(out);
  const OutputRequest request{.path = out, .makes_events = true};
  check_output_folder(request);
  put(out + "/runs", "x");
  expect_user_error([&] { check_output_folder(request); }, {"out/runs: is no folder", "report_to: none"});
  expect_user_error([&] { new_event_file(out + "/runs"); }, {"out/runs: is no folder"});
  check_output_folder({.path = out});
  fs::remove(out + "/runs");
  fs::create_directory_symlink(runs_, out + "/runs");
  expect_user_error([&] { check_output_folder(request); }, {"out/runs: is no folder, or a link to one"});
  if (geteuid() == 0) return;  // may write anywhere
  fs::remove(out + "/runs");
  fs::create_directory(out + "/runs");
  chmod((out + "/runs").c_str(), 0555);
  expect_user_error([&] { check_output_folder(request); }, {"out/runs: cannot be written: Permission denied"});
}

TEST_F(RunEvents, AreResultsThatOnlyOverwritingReplaces) {
  put(first_, events_of({1}));
  put(in_runs("events.out.tfevents.1000000002.theirs"), "theirs");
  expect_user_error([&] { check_output_folder({.path = folder_.path()}); }, {"results of another run (runs)"});
  OutputFolder({.path = folder_.path(), .overwrite = true}).begin();
  EXPECT_EQ(entries(runs_), std::vector<std::string>{"events.out.tfevents.1000000002.theirs"});
  check_output_folder({.path = folder_.path()});
}

}  // namespace
}  // namespace mixtune
