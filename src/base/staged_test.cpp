#include "base/staged.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/output_file.h"
#include "base/temp_folder.h"

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

TEST_F(Staged, LeavesWhatARunningProcessWrites) {
  const std::string foreign = fmt::format(".out.tmp-{}", getppid());
  for (const std::string& name :
       {foreign, std::string(".out.tmp-999999999"), std::string(".out.tmp-x"), std::string(".outer.tmp-999999999")})
    std::filesystem::create_directory(path(name));
  {
    StagedFolder staged(path("out"));
    write_file(staged.path() + "/file", "text");
    staged.commit();
  }
  EXPECT_EQ(entries(), (std::vector<std::string>{foreign, ".out.tmp-x", ".outer.tmp-999999999", "out"}));
}

}  // namespace
}  // namespace mixtune
