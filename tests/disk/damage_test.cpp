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

  // From which byte on a file is held against digests.
  static size_t begin_of_digested(const std::string& name, const std::string& content) {
    if (name == "manifest.json") return content.size();
    uint64_t header = 0;
    if (!name.ends_with(".safetensors")) return 0;
    std::memcpy(&header, content.data(), sizeof(header));
    return sizeof(header) + header;
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

// Any byte of any file is found, and the checkpoint left as it is; but some of a manifest, and some of a safetensors
// header, say nothing that a run needs.
TEST_F(Damage, AFlippedByte) {
  for (const auto& [name, content] : contents(path("out/checkpoint-2"))) {
    if (content == "folder") continue;
    const size_t places = every_call() ? 40 : 4, first_digested = begin_of_digested(name, content);
    for (size_t i = 0; i < places; ++i) {
      begin_with("stopped");
      const size_t place = content.size() * i / places;
      SCOPED_TRACE(fmt::format("byte {} of {}", place, name));
      std::string flipped = content;
      flipped[place] = static_cast<char>(flipped[place] ^ (1 << i % 8));
      write(checkpoint(name), flipped);
      const Contents before = contents(path("out"));
      const Outcome outcome = run(steps());
      if (place > 0 && place < first_digested && outcome.code == 0) continue;
      EXPECT_EQ(outcome.code, 2) << outcome.err;
      expect_told(outcome, "checkpoint");
      EXPECT_EQ(contents(path("out")), before);
      if (HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace mixtune
