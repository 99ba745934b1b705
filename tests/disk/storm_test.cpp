// Storms: a run that is killed at random instants, each time gone on with, ends as one that never was.
#include <cstdlib>
#include <random>

#include "checkpoint/run_folder.h"
#include "disk_runs.h"
#include "run/manifest.h"

namespace mixtune {
namespace {

// A number of the environment.
int wanted(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr || *text == '\0' ? otherwise : std::atoi(text);
}

constexpr int kCallsOfASave = 150;  // and those of a run's beginning

class Storm : public DiskRuns {
 protected:
  void SetUp() override {
    if (on_gpus()) GTEST_SKIP() << "bits are compared: on the CPU alone";
    make_inputs();
  }

  // Kills as MIXTUNE_STORM says in a run that is long enough for them: by turns after some time, as long as a run takes
  // to start and half as long again at most, and at some call to the disk.
  void storm(int otherwise, const Args& layout) {
    const int kills = wanted("MIXTUNE_STORM", otherwise);
    const auto seed =
        static_cast<unsigned>(wanted("MIXTUNE_STORM_SEED", static_cast<int>(std::random_device{}() >> 1)));
    SCOPED_TRACE(fmt::format("MIXTUNE_STORM={} MIXTUNE_STORM_SEED={}", kills, seed));
    const Args args = steps(8 * kills, layout);
    done(args);
    const double start = done(args).seconds;  // to find that all is done
    const Contents whole = contents(path("out"));
    fs::remove_all(path("out"));
    std::mt19937 random(seed);
    int killed = 0, ended = 0, torn = 0;
    int64_t done_steps = 0;
    while (killed < kills && !HasFailure()) {
      const double seconds = std::uniform_real_distribution(0.0, 1.5 * start)(random);
      const int call = std::uniform_int_distribution(1, kCallsOfASave)(random);
      const Outcome outcome = killed % 2 == 0 ? run_mixtune(args, path("."), seconds) : run_counted(args, "kill", call);
      expect_no_process_left();
      if (outcome.code == 0) {
        EXPECT_TRUE(contents(path("out")) == whole) << "after " << killed << " kills";
        fs::remove_all(path("out"));
        ++ended, done_steps = 0;
        continue;
      }
      ++killed;
      SCOPED_TRACE(fmt::format("kill {} of {}, after {} s or at call {}", killed, kills, seconds, call));
      EXPECT_TRUE(outcome.code == -1 || outcome.err.find("killed by signal 9") != outcome.err.npos) << outcome.err;
      torn += expect_sound(done_steps);
    }
    done(args);
    const Contents found = contents(path("out"));
    for (const auto& [name, content] : found) EXPECT_TRUE(whole.contains(name) && content == whole.at(name)) << name;
    EXPECT_EQ(found.size(), whole.size());
    fmt::print("{} kills, seed {}: {} left something half-written, {} runs came to their end\n", killed, seed, torn,
               ended + 1);
  }

 private:
  static Args steps(int count, const Args& layout) {
    Args args = {fmt::format("--max_steps={}", count),
                 "--save_steps=4",
                 "--eval_steps=16",
                 "--save_total_limit=2",
                 "--logging_steps=1000",
                 "--resume_from_checkpoint=auto"};
    args.insert(args.end(), layout.begin(), layout.end());
    return train("out", args);
  }

  // Every checkpoint has the bytes that its manifest says, `latest` names one, and none is lost: `done_steps` is that
  // of the newest. Returns whether something is there under a temporary name.
  bool expect_sound(int64_t& done_steps) const {
    if (!fs::exists(path("out"))) return false;
    const std::vector<int64_t> steps = checkpoint_steps(path("out"));
    for (const int64_t step : steps) {
      const std::string folder = path("out") / checkpoint_name(step);
      const Manifest manifest = read_manifest(folder);
      EXPECT_EQ(manifest.files.size() + 1, files_below(folder).size());
      for (const auto& [name, file] : manifest.files) EXPECT_EQ(digest_file(folder + "/" + name), file) << name;
    }
    EXPECT_GE(steps.empty() ? 0 : steps.back(), done_steps) << "a checkpoint is lost";
    if (!steps.empty()) done_steps = steps.back();
    const std::string latest = read(path("out/latest"));
    EXPECT_TRUE(latest.empty() ? steps.size() < 2 : fs::exists(path("out") / latest.substr(0, latest.size() - 1)))
        << "latest: " << latest;
    return std::ranges::any_of(fs::directory_iterator(path("out")), [](const fs::directory_entry& entry) {
      return entry.path().filename().string().find(".tmp-") != std::string::npos;
    });
  }
};

TEST_F(Storm, OfOneProcess) {
  storm(15, {"--per_device_train_batch_size=2"});
}

TEST_F(Storm, OfRanks) {
  storm(5, {"--nproc=2", "--expert_model_parallel_size=2", "--per_device_train_batch_size=1"});
}

}  // namespace
}  // namespace mixtune
