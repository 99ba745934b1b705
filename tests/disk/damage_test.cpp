// Checkpoints that came to harm after they were written, or are others than they seem: a run that is to go on says so
// in one line, or goes on.
#include "disk_runs.h"

namespace mixtune {
namespace {

class Damage : public DiskRuns {
 protected:
  // `stopped`: a run that was killed when it began to save for the second time.
  void SetUp() override {
    DiskRuns::SetUp();
    if (IsSkipped()) return;
    EXPECT_EQ(run_counted(steps()).code, 0);
    const std::vector<Call> whole = calls();
    const auto second = std::ranges::find_if(
        whole, [](const Call& call) { return call.name == "mkdir" && call.file().starts_with(".checkpoint-4"); });
    ASSERT_NE(second, whole.end());
    begin_with("");
    run_counted(steps(), "kill", second->number);
    fs::rename(path("out"), path("stopped"));
    begin_with("stopped");
  }

  std::string checkpoint(const std::string& file) const { return path("out/checkpoint-2/" + file); }

  void expect_refused(const std::string& part) const {
    const Contents before = contents(path("out"));
    const Outcome outcome = run(steps());
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    expect_told(outcome, part);
    EXPECT_EQ(contents(path("out")), before);
  }
};

TEST_F(Damage, AMissingFile) {
  for (const char* file :
       {"model.safetensors", "state/rank-00000-00001.safetensors", "state/index.json", "config.json"}) {
    begin_with("stopped");
    fs::remove(checkpoint(file));
    expect_refused(fmt::format("checkpoint-2/{}: is missing", file));
  }
}

TEST_F(Damage, ANewerFormat) {
  nlohmann::json manifest = nlohmann::json::parse(read(checkpoint("manifest.json")));
  manifest["format"] = 1000;
  write(checkpoint("manifest.json"), manifest.dump());
  expect_refused("manifest.json: is of format 1000, newer than this version's");
}

// Any byte of any file: no signal and no second line. One that says what the others are is found; of one in the
// weights, the moments or a text only its file's digest could tell, and the run goes on to its end.
TEST_F(Damage, AFlippedByte) {
  for (const auto& [name, content] : contents(path("out/checkpoint-2"))) {
    if (content == "folder") continue;
    const size_t places = every_call() ? 40 : 4;
    for (size_t i = 0; i < places; ++i) {
      begin_with("stopped");
      const size_t place = content.size() * i / places;
      SCOPED_TRACE(fmt::format("byte {} of {}", place, name));
      std::string flipped = content;
      flipped[place] = static_cast<char>(flipped[place] ^ (1 << i % 8));
      write(checkpoint(name), flipped);
      const Outcome outcome = run(steps());
      if (place == 0 || outcome.code != 0) expect_told(outcome, "checkpoint");
      if (HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace mixtune
