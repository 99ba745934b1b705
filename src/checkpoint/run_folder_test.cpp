#include "checkpoint/run_folder.h"

#include "checkpoint/test_model.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;

TEST(CheckpointName, OnlyWhatARunWrites) {
  for (const int64_t step : {int64_t{0}, int64_t{1}, int64_t{500}, INT64_MAX})
    EXPECT_EQ(checkpoint_step(checkpoint_name(step)), step);
  for (const char* other :
       {"", "checkpoint-", "checkpoint-x", "checkpoint-1x", "checkpoint-01", "checkpoint--1", "checkpoint-+1",
        "checkpoint- 1", "checkpoint-9223372036854775808", "Checkpoint-1", "checkpoint-1/../..", "checkpoint-1\n"})
    EXPECT_FALSE(checkpoint_step(other)) << other;
}

class RunFolder : public testing::Test {
 protected:
  RunFolder() { fs::create_directories(run_ + "/checkpoint-20"); }
  void latest(std::string_view text) const { put(run_ + "/latest", text); }

  const TempFolder folder_;
  const std::string run_ = folder_ / "run";
};

TEST_F(RunFolder, IsItsLatestCheckpoint) {
  latest("checkpoint-20\n");
  testing::internal::CaptureStderr();
  EXPECT_EQ(model_folder(run_), run_ + "/checkpoint-20");
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "mixtune: " + run_ + ": a run's folder: its latest checkpoint, checkpoint-20, is taken\n");
  latest("checkpoint-20");
  EXPECT_EQ(model_folder(run_), run_ + "/checkpoint-20");
}

TEST_F(RunFolder, OtherPathsStayAsTheyAre) {
  EXPECT_EQ(model_folder(run_), run_);
  EXPECT_EQ(model_folder("/nowhere"), "/nowhere");
  EXPECT_EQ(model_folder(""), "");
  latest("checkpoint-20\n");
  EXPECT_EQ(model_folder(run_ + "/latest"), run_ + "/latest");
  EXPECT_EQ(model_folder(run_ + "/checkpoint-20"), run_ + "/checkpoint-20");
  put(run_ + "/config.json", "{}");  // a model's folder, whatever else is in it
  EXPECT_EQ(model_folder(run_), run_);
}

TEST_F(RunFolder, NothingInLatestIsTrusted) {
  for (const std::string& text :
       {std::string(), std::string("\n"), std::string("."), std::string(".."), std::string("../run/checkpoint-20"),
        std::string("/etc"), std::string("checkpoint-20\n\n"), std::string("checkpoint-20\ncheckpoint-20\n"),
        std::string(" checkpoint-20"), std::string("checkpoint-20\0", 14), std::string("model")}) {
    latest(text);
    expect_user_error([&] { model_folder(run_); }, {run_ + "/latest: does not name a checkpoint"});
  }
  latest("checkpoint-" + std::string(100, '1'));
  expect_user_error([&] { model_folder(run_); }, {run_ + "/latest: is larger than 64 B"});
  latest("checkpoint-21\n");
  expect_user_error([&] { model_folder(run_); }, {run_ + "/latest: names checkpoint-21, which is not there"});
}

TEST_F(RunFolder, LinksStayWithin) {
  const TempFolder elsewhere;
  put(elsewhere / "latest", "checkpoint-20\n");
  fs::create_symlink(elsewhere / "latest", run_ + "/latest");
  expect_user_error([&] { model_folder(run_); }, {run_ + "/latest: is a link that leads out"});
  fs::remove(run_ + "/latest");
  latest("checkpoint-30\n");
  fs::create_directory_symlink(elsewhere.path(), run_ + "/checkpoint-30");
  const std::string moved = run_ + "/checkpoint-30";  // to another disk, say
  expect_user_error([&] { model_folder(run_); },
                    {moved + ": is a link that leads out of its folder; give that folder itself: " + moved});
  fs::remove(elsewhere / "latest");
  EXPECT_EQ(model_folder(moved), moved);
}

TEST_F(RunFolder, DeepSpeedsFoldersAreNoRunsOfOurs) {
  latest("global_step100");
  put(run_ + "/zero_to_fp32.py", "");
  expect_user_error([&] { model_folder(run_); }, {run_ + ": is a DeepSpeed checkpoint"});
}

}  // namespace
}  // namespace mixtune
