// Runs whose output folder cannot be written, is on a full disk, or goes away.
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "disk_runs.h"

namespace mixtune {
namespace {

// Makes programs that are started from now on subject to the rights of files, which root's are not.
bool give_up_rights() {
  return geteuid() != 0 ||
         (prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE) == 0 && prctl(PR_CAPBSET_DROP, CAP_DAC_READ_SEARCH) == 0);
}

// Gives this process mounts of its own, which end with it.
bool have_own_mounts() {
  const uid_t user = geteuid();
  const gid_t group = getegid();
  if (unshare(CLONE_NEWNS) != 0) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    write("/proc/self/setgroups", "deny");
    write("/proc/self/uid_map", fmt::format("{} {} 1", user, user));
    write("/proc/self/gid_map", fmt::format("{} {} 1", group, group));
  }
  return mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

class Folders : public DiskRuns {
 protected:
  void set_rights(fs::perms rights) const { fs::permissions(path("out"), rights); }
  void forbid_writing() const { set_rights(fs::perms::owner_read | fs::perms::owner_exec); }

  // Makes `out` a tmpfs of a size, or gives it another.
  bool mounts_out(const char* size, unsigned long flags) const {
    if ((flags & MS_REMOUNT) == 0) {
      fs::create_directory(path("out"));
      if (!have_own_mounts()) return false;
    }
    return mount("tmpfs", path("out").c_str(), "tmpfs", flags, size) == 0;
  }

  // Calls of the second save: its first, one in its middle, and the one that gives it its name.
  std::vector<Call> of_the_second_save() const {
    EXPECT_EQ(run_counted(steps()).code, 0);
    std::vector<Call> some;
    for (const Call& call : calls())
      if ((call.name == "mkdir" && call.file().starts_with(".checkpoint-4")) ||
          (call.name == "open" && call.file() == "rank-00000-00001.safetensors" &&
           call.path.find(".checkpoint-4.tmp-") != call.path.npos) ||
          (call.name == "rename" && call.file() == "checkpoint-4"))
        some.push_back(call);
    EXPECT_EQ(some.size(), 3u);
    begin_with("");
    return some;
  }

  void expect_failed(const Outcome& outcome, int code, const std::string& part) const {
    EXPECT_EQ(outcome.code, code) << outcome.err;
    expect_told(outcome, part);
  }
};

TEST_F(Folders, ThatMayNotBeWrittenAreRefused) {
  if (!give_up_rights()) GTEST_SKIP() << "root may write everywhere, and this one keeps its rights";
  fs::create_directory(path("out"));
  forbid_writing();
  expect_failed(run(steps()), 2, "out cannot be written: Permission denied");
  EXPECT_TRUE(fs::is_empty(path("out")));
  set_rights(fs::perms::owner_all);
  expect_resumes_to_the_end();
}

TEST_F(Folders, ThatMayNoLongerBeWritten) {
  if (!give_up_rights()) GTEST_SKIP() << "root may write everywhere, and this one keeps its rights";
  for (const Call& call : of_the_second_save()) {
    SCOPED_TRACE(call.str());
    if (call.name == "open") continue;  // in a folder of the run's own
    expect_failed(run_while(steps(), call.number, [&] { forbid_writing(); }), 1, "Permission denied");
    set_rights(fs::perms::owner_all);
    EXPECT_EQ(read(path("out/latest")), "checkpoint-2\n");
    expect_sound(call.number, false);
    expect_resumes_to_the_end();
    begin_with("");
  }
}

// That is known before the first step.
TEST_F(Folders, OnADiskWithoutRoomForACheckpoint) {
  if (!mounts_out("size=1m", 0)) GTEST_SKIP() << "this process may mount nothing";
  expect_failed(run(steps()), 2, "a checkpoint takes");
  EXPECT_FALSE(fs::exists(path("out/metrics.jsonl")));
  ASSERT_TRUE(mounts_out("size=30m", MS_REMOUNT));
  expect_resumes_to_the_end();
  umount(path("out").c_str());
}

TEST_F(Folders, OnAFullDisk) {
  if (!mounts_out("size=3m", 0)) GTEST_SKIP() << "this process may mount nothing";
  const Outcome outcome = run_counted(steps());  // there is space for one checkpoint
  expect_failed(outcome, 1, "free some space");
  EXPECT_EQ(read(path("out/latest")), "checkpoint-2\n");
  expect_sound(0, false);
  ASSERT_TRUE(mounts_out("size=30m", MS_REMOUNT));
  expect_resumes_to_the_end();
  umount(path("out").c_str());
}

TEST_F(Folders, WhereFilesMayNotBeSoLarge) {
  std::string words = fmt::format("{}", fmt::join(steps(), " "));
  const Outcome outcome = run_shell("ulimit -f 100; exec \"$0\" " + words, path("."));
  expect_failed(outcome, 1, "File too large");
  EXPECT_FALSE(fs::exists(path("out/checkpoint-2")));
  expect_resumes_to_the_end();
}

// Like a file system of other machines that is gone for a while.
TEST_F(Folders, ThatGoAwayAndComeBack) {
  for (const Call& call : of_the_second_save()) {
    SCOPED_TRACE(call.str());
    const Outcome outcome = run_while(steps(), call.number, [&] { fs::rename(path("out"), path("away")); });
    expect_failed(outcome, 1, "No such file or directory");
    EXPECT_FALSE(fs::exists(path("out"))) << "made anew";
    fs::rename(path("away"), path("out"));
    EXPECT_EQ(read(path("out/latest")), "checkpoint-2\n");
    expect_sound(call.number, false);
    expect_resumes_to_the_end();
    begin_with("");
  }
}

TEST_F(Folders, ThatAreRemoved) {
  for (const Call& call : of_the_second_save()) {
    SCOPED_TRACE(call.str());
    const Outcome outcome = run_while(steps(), call.number, [&] { fs::remove_all(path("out")); });
    expect_failed(outcome, 1, "No such file or directory");
    EXPECT_FALSE(fs::exists(path("out"))) << "made anew";
    expect_resumes_to_the_end();
    begin_with("");
  }
}

// For longer than a rank may stand still.
TEST_F(Folders, ThatAreSlowAreWaitedForByOtherRanks) {
  fs::create_directory(path("out"));
  const Args args = {"generate",
                     "model",
                     "--ids=1,5,9",
                     "--max-new-tokens=1",
                     "--logits=out/logits.safetensors",
                     "--nproc=2",
                     "--device=cpu",
                     "--collective_timeout=1.5"};
  EXPECT_EQ(run_counted(args).code, 0);
  const std::vector<Call> all = calls();
  const auto written = std::ranges::find(all, "fsync", &Call::name);
  ASSERT_NE(written, all.end());
  fs::remove(path("out/logits.safetensors"));
  const Outcome outcome =
      run_while(args, written->number, [] { std::this_thread::sleep_for(std::chrono::seconds(4)); });
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(fs::exists(path("out/logits.safetensors")));
}

}  // namespace
}  // namespace mixtune
