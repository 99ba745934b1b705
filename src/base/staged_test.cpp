#include "base/staged.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/output_file.h"
#include "base/temp_folder.h"

namespace {

int rename_error = 0;  // of every renameat2; 0: what the system says

}  // namespace

// Stands in for the C library's: file systems differ in their answers to a rename that they cannot do.
extern "C" int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) noexcept {
  if (rename_error == 0) return static_cast<int>(syscall(SYS_renameat2, from_folder, from, to_folder, to, flags));
  errno = rename_error;
  return -1;
}

namespace mixtune {
namespace {

class Staged : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  std::string read(const std::string& name) const { return read_small_file(path(name), 100, ""); }

  std::vector<std::string> entries() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) names.push_back(entry.path().filename());
    std::ranges::sort(names);
    return names;
  }

  const TempFolder temporary_;
  const std::string folder_ = temporary_.path();
};

TEST_F(Staged, AFileReplacesTheOneOfItsName) {
  write_file(path("file"), "old");
  {
    StagedPath staged(path("file"));
    write_file(staged.path(), "new");
    EXPECT_EQ(read("file"), "old");
    staged.commit();
  }
  EXPECT_EQ(read("file"), "new");
  EXPECT_EQ(entries(), std::vector<std::string>{"file"});
}

TEST_F(Staged, FileSystemsThatCannotRefuseToReplace) {
  for (const int error : {EINVAL, ENOSYS, EOPNOTSUPP}) {
    rename_error = error;
    EXPECT_NO_THROW(write_whole_file(path("new"), "text", Existing::kRefused)) << error;
    EXPECT_THROW(write_whole_file(path("new"), "other", Existing::kRefused), UserError) << error;
    rename_error = 0;
    EXPECT_EQ(entries(), std::vector<std::string>{"new"});
    EXPECT_EQ(read("new"), "text");
    std::filesystem::remove(path("new"));
  }
  rename_error = EACCES;
  EXPECT_THROW(write_whole_file(path("new"), "text", Existing::kRefused), Error);
  rename_error = 0;
}

TEST_F(Staged, WhatIsNotCommittedGoes) {
  write_file(path("file"), "old");
  {
    const StagedPath staged(path("file"));
    write_file(staged.path(), "new");
    const StagedFolder folder(path("folder/"));
    write_file(folder.path() + "/file", "new");
    EXPECT_EQ(entries().size(), 3u);
  }
  EXPECT_EQ(entries(), std::vector<std::string>{"file"});
  EXPECT_EQ(read("file"), "old");
}

TEST_F(Staged, AFolderIsNew) {
  std::filesystem::create_directory(path("folder"));
  EXPECT_THROW(StagedFolder(path("folder")), UserError);
  EXPECT_THROW(StagedFolder(path("nowhere/folder")), UserError);
}

// A file that comes under the name meanwhile is the user's.
TEST_F(Staged, NothingIsReplacedUnlessAsked) {
  StagedPath file(path("file"));
  write_file(file.path(), "ours");
  write_file(path("file"), "theirs");
  EXPECT_THROW(file.commit_new(), UserError);
  EXPECT_EQ(read("file"), "theirs");

  StagedFolder folder(path("folder"));
  std::filesystem::create_directory(path("folder"));
  EXPECT_THROW(folder.commit(), UserError);
  EXPECT_TRUE(std::filesystem::is_empty(path("folder")));

  EXPECT_THROW(write_whole_file(path("file"), "ours", Existing::kRefused), UserError);
  EXPECT_EQ(read("file"), "theirs");
  write_whole_file(path("file"), "ours", Existing::kReplaced);
  EXPECT_EQ(read("file"), "ours");
  write_whole_file(path("new"), "ours", Existing::kRefused);
  EXPECT_EQ(read("new"), "ours");
}

TEST_F(Staged, NothingIsWrittenThroughALink) {
  write_file(path("precious"), "theirs");
  for (const char* name : {"link", "other"}) std::filesystem::create_symlink(path("precious"), path(name));
  std::filesystem::create_symlink(path("nowhere"), path("dangling"));
  write_whole_file(path("link"), "ours", Existing::kReplaced);
  EXPECT_EQ(read("link"), "ours");
  for (const char* name : {"other", "dangling"})
    EXPECT_THROW(write_whole_file(path(name), "ours", Existing::kRefused), UserError);
  EXPECT_THROW(write_file(path("other"), "ours"), Error);
  EXPECT_THROW(StagedFolder(path("dangling")), UserError);
  EXPECT_EQ(read("precious"), "theirs");
  EXPECT_EQ(entries(), (std::vector<std::string>{"dangling", "link", "other", "precious"}));
}

TEST_F(Staged, WhatCannotBeRemovedIsTold) {
  try {
    remove_whole(path("gone"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("gone: cannot be removed: No such file"), std::string::npos)
        << error.what();
  }
}

// No other process, nor another run of this one, can know the name and be there first.
TEST_F(Staged, NamesCannotBeGuessed) {
  const StagedPath first(path("out")), second(path("out"));
  EXPECT_NE(first.path(), second.path());
  const std::string start = path(fmt::format(".out.tmp-{}-{}-", host_name(), getpid()));
  for (const StagedPath* staged : {&first, &second}) {
    ASSERT_TRUE(staged->path().starts_with(start)) << staged->path();
    EXPECT_EQ(staged->path().size(), start.size() + 16);
  }
}

// A name as another process leaves it; a word of digits can look like a process.
std::string name_of(const std::string& name, const std::string& host, int64_t pid) {
  return fmt::format(".{}.tmp-{}-{}-0123456789012345", name, host, pid);
}

TEST_F(Staged, RemovesWhatEndedProcessesLeft) {
  constexpr int kEnded = 999999999;
  const StagedPath own(path("out"));
  const std::string running = name_of("out", host_name(), getppid()), before = name_of("out", host_name(), getpid()),
                    own_name = std::filesystem::path(own.path()).filename(),
                    elsewhere = name_of("out", "node-7", kEnded), old = name_of("out", "node-8", getpid()),
                    other = name_of("outer", host_name(), kEnded), foreign = ".out.tmp-999999999", odd = ".out.tmp-x";
  for (const std::string& name :
       {running, own_name, before, elsewhere, old, other, foreign, odd, name_of("out", host_name(), kEnded)})
    std::filesystem::create_directory(path(name));
  write_file(path(old) + "/file", "text");
  std::filesystem::last_write_time(path(old),
                                   std::filesystem::file_time_type::clock::now() - std::chrono::hours(8 * 24));
  {
    StagedFolder staged(path("out"));
    write_file(staged.path() + "/file", "text");
    staged.commit();
  }
  std::vector<std::string> expected = {running, own_name, elsewhere, other, foreign, odd, "out"};
  std::ranges::sort(expected);
  EXPECT_EQ(entries(), expected);
}

// As in a container whose first process never waits for what it is given.
TEST_F(Staged, AProcessThatNobodyHasWaitedForHasEnded) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  siginfo_t ended{};
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT), 0);
  std::filesystem::create_directory(path(name_of("out", host_name(), child)));
  remove_stale(folder_, "out");
  EXPECT_TRUE(entries().empty());
  waitpid(child, nullptr, 0);
}

}  // namespace
}  // namespace mixtune
