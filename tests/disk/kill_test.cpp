// Runs that are killed at each call by which they change their folder.
#include "disk_runs.h"

namespace mixtune {
namespace {

// A half of the calls for each of two tests, which run side by side.
class Kills : public DiskRuns, public testing::WithParamInterface<int> {
 protected:
  static std::vector<Call> half(const std::vector<Call>& calls) {
    std::vector<Call> some;
    for (size_t i = static_cast<size_t>(GetParam()); i < calls.size(); i += 2) some.push_back(calls[i]);
    return some;
  }
};

INSTANTIATE_TEST_SUITE_P(Halves, Kills, testing::Values(0, 1));

// The count is of something: a save writes, syncs and renames, and so does a resume.
TEST_F(DiskRuns, CountsTheCalls) {
  EXPECT_EQ(run_counted(steps()).code, 0);
  std::map<std::string, int> counts;
  for (const Call& call : calls()) ++counts[call.name];
  for (const char* name : {"open", "write", "pwrite", "fsync", "rename", "unlink", "rmdir", "mkdir", "ftruncate"})
    EXPECT_GT(counts[name], 0) << name;
  for (const char* file : {"model.safetensors", "rank-00000-00001.safetensors", "manifest.json", "checkpoint-2"})
    EXPECT_TRUE(std::ranges::any_of(calls(), [&](const Call& call) { return call.file() == file; })) << file;
  EXPECT_EQ(run_mixtune({"inspect", "out"}, path(".")).code, 0);
  expect_sound(0, false);
}

TEST_P(Kills, AtAnyCallOfARun) {
  ASSERT_EQ(run_counted(steps()).code, 0);
  const std::vector<Call> at = half(chosen(calls()));
  RecordProperty("kills", static_cast<int>(at.size()));
  kill_at_each(at);
}

// The run that goes on finds half of a checkpoint, a `latest` of before and half a record, and prunes.
TEST_P(Kills, AtAnyCallOfAResume) {
  ASSERT_EQ(run_counted(steps()).code, 0);
  const std::vector<Call> whole = calls();
  const auto torn = std::ranges::find_if(whole, [](const Call& call) {
    return call.path.find(".checkpoint-4.tmp-") != call.path.npos && call.file() == "manifest.json";
  });
  ASSERT_NE(torn, whole.end());
  fs::remove_all(path("out"));
  run_counted(steps(), "kill", torn->number);
  fs::rename(path("out"), path("torn"));
  write(path("torn/metrics.jsonl"), read(path("torn/metrics.jsonl")) + "{\"step\":4,\"lo");
  for (const auto& events : fs::directory_iterator(path("torn/runs")))
    write(events, read(events) + std::string("\x40\0\0\0\0\0\0\0half", 12));
  begin_with("torn");
  ASSERT_EQ(run_counted(steps()).code, 0);
  const std::vector<Call> at = half(chosen(calls()));
  RecordProperty("kills", static_cast<int>(at.size()));
  kill_at_each(at, "torn");
}

}  // namespace
}  // namespace mixtune
