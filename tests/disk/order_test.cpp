// The order of calls by which a run changes its folder. A kill shows nothing of what a power cut takes; this does.
#include <set>

#include "disk_runs.h"

namespace mixtune {
namespace {

// What may be in memory alone, as calls are made.
class Unsynced {
 public:
  void see(const Call& call) {
    const std::string parent = fs::path(call.path).parent_path();
    if (call.name == "fsync") {
      paths_.erase(call.path);
      std::erase_if(names_, [&](const std::string& name) { return fs::path(name).parent_path() == call.path; });
    } else if (call.name == "rename") {
      expect_on_disk(call, parent);
      names_.insert(call.path);
    } else if (call.name == "open" || call.name == "mkdir") {
      paths_.insert({call.path, parent});
    } else if (call.name.ends_with("write") || call.name == "ftruncate") {
      paths_.insert(call.path);
    }
  }

  void expect_names() const { EXPECT_TRUE(names_.empty()) << *names_.begin(); }

 private:
  // A name is given to what is on the disk whole, and not before the names that were given earlier are there too:
  // `latest` may not come before its checkpoint, nor the end of an old one before a new `latest`.
  void expect_on_disk(const Call& call, const std::string& parent) const {
    SCOPED_TRACE(call.str());
    expect_names();
    const std::string made = fmt::format("{}/.{}.tmp-", parent, call.file());
    for (const std::string& path : paths_) EXPECT_FALSE(path.starts_with(made)) << path << " may be in memory alone";
  }

  std::set<std::string> paths_;  // files by their bytes, folders by the names in them
  std::set<std::string> names_;  // given by a rename
};

TEST_F(DiskRuns, NothingHasItsNameBeforeItIsOnTheDisk) {
  ASSERT_EQ(run_counted(steps()).code, 0);
  Unsynced unsynced;
  int renames = 0;
  for (const Call& call : calls()) {
    unsynced.see(call);
    renames += call.name == "rename";
  }
  unsynced.expect_names();
  EXPECT_GE(renames, 6);  // the configuration, two checkpoints, `latest` of each, one that is pruned
}

}  // namespace
}  // namespace mixtune
