#include "run/best_checkpoint.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/staged.h"
#include "checkpoint/run_folder.h"
#include "checkpoint/test_model.h"
#include "run/output_folder.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;

TEST(BestCheckpoints, AreTheSmallestOfThoseThatAreThere) {
  BestCheckpoint best("eval_loss");
  EXPECT_FALSE(best.among({1, 2}));
  best.add(10, {{"eval_loss", 2.5}, {"eval_perplexity", 1}});
  best.add(20, {{"eval_loss", 2.25}});
  best.add(30, {{"eval_loss", 2.25}});
  best.add(40, {});
  EXPECT_EQ(best.among({10, 20, 30, 40}), 20) << "of equals the first";
  EXPECT_EQ(best.among({10, 40}), 10);
  EXPECT_FALSE(best.among({40}));
  EXPECT_EQ(best.str(20), "eval_loss 2.25");
  best.add(20, {});  // saved anew
  EXPECT_EQ(best.among({10, 20, 30}), 30);
  BestCheckpoint none("");
  none.add(10, {{"eval_loss", 2.5}});
  EXPECT_FALSE(none.among({10}));
}

// A run's folder whose checkpoints have evaluations.
class BestOfAFolder : public testing::Test {
 protected:
  void make(const std::map<int64_t, double>& losses) {
    for (const auto& [step, loss] : losses) {
      fs::create_directories(out_ + "/" + checkpoint_name(step));
      put(out_ + "/" + checkpoint_name(step) + "/" + kManifestFile,
          format_manifest({.step = step, .evaluation = {{"eval_loss", loss}}}));
    }
    if (!losses.empty()) put(out_ + "/latest", checkpoint_name(losses.rbegin()->first) + "\n");
  }
  OutputRequest request(int64_t resumes) const {
    return {.path = out_, .resumes = resumes, .best_metric = "eval_loss"};
  }
  std::string best() const { return fs::exists(out_ + "/best") ? get(out_ + "/best") : ""; }
  std::vector<int64_t> steps() const { return checkpoint_steps(out_); }

  TempFolder folder_;
  std::string out_ = folder_ / "out";
};

using Steps = std::vector<int64_t>;

TEST_F(BestOfAFolder, IsNamedAndStays) {
  OutputFolder output({.path = out_, .best_metric = "eval_loss"});
  output.begin();
  EXPECT_EQ(output.best_str(), "");
  const auto save = [&](int64_t step, const Evaluation& evaluation, int64_t limit) {
    fs::create_directories(output.checkpoint_path(step));
    output.write_latest(step);
    output.write_best(step, evaluation);
    output.prune(limit);
  };
  save(1, {}, 1);
  EXPECT_EQ(best(), "") << "it was not evaluated";
  save(2, {{"eval_loss", 3}}, 1);
  save(3, {{"eval_loss", 4}}, 1);
  EXPECT_EQ(best(), "checkpoint-2\n");
  EXPECT_EQ(steps(), (Steps{2, 3})) << "the best and the newest, though one is asked for";
  save(4, {{"eval_loss", 5}}, 2);
  EXPECT_EQ(steps(), (Steps{2, 4})) << "the best counts";
  save(5, {{"eval_loss", 2}}, 1);
  EXPECT_EQ(best(), "checkpoint-5\n");
  EXPECT_EQ(steps(), Steps{5});
  EXPECT_EQ(output.best_str(), "checkpoint-5, eval_loss 2");
}

TEST_F(BestOfAFolder, IsNotAskedFor) {
  OutputFolder output({.path = out_});
  output.begin();
  fs::create_directories(output.checkpoint_path(2));
  output.write_best(2, {{"eval_loss", 3}});
  EXPECT_EQ(entries(out_), (std::vector<std::string>{".lock", "checkpoint-2"}));
}

TEST_F(BestOfAFolder, IsKnownAgainWhenTheRunGoesOn) {
  make({{2, 3}, {4, 5}});
  OutputFolder output(request(4));
  output.begin();
  EXPECT_EQ(best(), "checkpoint-2\n");
  fs::create_directories(output.checkpoint_path(6));
  output.write_best(6, {{"eval_loss", 4}});
  output.prune(1);
  EXPECT_EQ(best(), "checkpoint-2\n");
  EXPECT_EQ(steps(), (Steps{2, 6}));
}

// `best` never names what is about to be removed.
TEST_F(BestOfAFolder, IsOfWhatTheRunGoesOnFromOrBefore) {
  make({{2, 3}, {4, 5}, {6, 1}});
  put(out_ + "/best", "checkpoint-6\n");
  OutputRequest earlier = request(4);
  earlier.overwrite = true;
  OutputFolder(earlier).begin();
  EXPECT_EQ(best(), "checkpoint-2\n");
  EXPECT_EQ(steps(), (Steps{2, 4}));
}

TEST_F(BestOfAFolder, GoesWhereItIsNoLongerAskedFor) {
  make({{2, 3}, {4, 5}});
  put(out_ + "/best", "checkpoint-2\n");
  OutputRequest without = request(4);
  without.best_metric.clear();
  EXPECT_FALSE(OutputFolder::is_closed(without, 0));
  OutputFolder(without).begin();
  EXPECT_EQ(best(), "");
  fs::create_directory_symlink("checkpoint-2", out_ + "/best");  // the user's own
  EXPECT_TRUE(OutputFolder::is_closed(without, 0));
  OutputFolder(without).begin();
  EXPECT_TRUE(fs::is_symlink(out_ + "/best"));
}

TEST_F(BestOfAFolder, IsMendedWhenAKillCameBeforeIt) {
  make({{2, 3}, {4, 5}, {6, 1}});
  put(out_ + "/best", "checkpoint-2\n");
  EXPECT_FALSE(OutputFolder::is_closed(request(6), 1));
  OutputFolder(request(6)).close(1);
  EXPECT_EQ(best(), "checkpoint-6\n");
  EXPECT_EQ(steps(), Steps{6});
  EXPECT_TRUE(OutputFolder::is_closed(request(6), 1));
  put(out_ + "/latest", "checkpoint-4\n");
  EXPECT_FALSE(OutputFolder::is_closed(request(6), 1));
}

TEST_F(BestOfAFolder, StandsForTheFolder) {
  make({{2, 3}, {4, 5}});
  EXPECT_EQ(model_folder(out_), out_ + "/checkpoint-4");
  put(out_ + "/best", "checkpoint-2\n");
  EXPECT_EQ(model_folder(out_), out_ + "/checkpoint-2");
  EXPECT_EQ(newest_checkpoint(out_), out_ + "/checkpoint-4");
  put(out_ + "/best", "../model\n");
  expect_user_error([&] { model_folder(out_); }, {"best: does not name a checkpoint"});
  put(out_ + "/best", "checkpoint-3\n");
  expect_user_error([&] { model_folder(out_); }, {"best: names checkpoint-3, which is not there"});
}

// Another run's, replaced or in the way.
TEST_F(BestOfAFolder, IsOfAResult) {
  fs::create_directories(out_);
  put(out_ + "/best", "checkpoint-2\n");
  expect_user_error([&] { check_output_folder({.path = out_}); }, {"holds the results of another run (best)"});
  OutputFolder({.path = out_, .overwrite = true}).begin();
  EXPECT_EQ(entries(out_), std::vector<std::string>{".lock"});
}

}  // namespace
}  // namespace mixtune
