#include "run/output_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <thread>

#include "base/staged.h"
#include "checkpoint/test_model.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;

class Output : public testing::Test {
 protected:
  void expect_refused(const OutputRequest& request, const std::vector<std::string>& fragments) {
    const auto before = entries(folder_.path());
    expect_user_error([&] { check_output_folder(request); }, fragments);
    expect_user_error([&] { OutputFolder{request}; }, fragments);
    EXPECT_EQ(entries(folder_.path()), before);
  }

  // Leaves what a finished run leaves, and a file of the user's.
  void make_results() {
    fs::create_directories(out_ + "/checkpoint-5");
    fs::create_directories(out_ + "/checkpoint-best");
    fs::create_directories(out_ + "/checkpoint-007");
    put(out_ + "/checkpoint-5/model.safetensors", "x");
    for (const char* name : {"metrics.jsonl", "latest", "config.resolved.yaml", "notes.txt"})
      put(out_ + "/" + name, "x");
  }

  TempFolder folder_;
  std::string out_ = folder_ / "out";
};

TEST_F(Output, MakesTheFolderAndItsParents) {
  const std::string deep = out_ + "/a/b";
  check_output_folder({.path = deep});
  EXPECT_FALSE(fs::exists(out_));
  {
    OutputFolder output({.path = deep + "/"});
    EXPECT_EQ(output.path(), deep);
    EXPECT_EQ(output.checkpoint_path(12), deep + "/checkpoint-12");
    EXPECT_TRUE(fs::is_directory(deep));
  }
  EXPECT_FALSE(fs::exists(out_));  // no run began there
  OutputFolder({.path = deep}).begin();
  EXPECT_EQ(entries(deep), std::vector<std::string>{".lock"});
}

TEST_F(Output, IsAsItWasUntilARunBegins) {
  make_results();
  const auto before = entries(out_);
  {
    const OutputFolder output({.path = out_, .overwrite = true});
    EXPECT_TRUE(fs::exists(out_ + "/.lock"));
  }
  EXPECT_EQ(entries(out_), before);
  put(out_ + "/.lock", "1");
  { const OutputFolder output({.path = out_, .overwrite = true}); }
  EXPECT_TRUE(fs::exists(out_ + "/.lock"));
}

TEST_F(Output, RefusesWhatIsNoFolder) {
  put(out_, "kept");
  expect_refused({.path = out_}, {out_, "is a file"});
  expect_refused({.path = out_ + "/inside"}, {"is a file"});
  expect_user_error([] { OutputFolder({.path = "/proc/mixtune"}); }, {"/proc/mixtune", "choose another output_dir"});
  EXPECT_EQ(get(out_), "kept");
}

TEST_F(Output, RefusesResultsUnlessToldToOverwrite) {
  make_results();
  const auto before = entries(out_);
  expect_refused({.path = out_}, {"results of another run", "another output_dir", "overwrite_output_dir: true"});
  EXPECT_EQ(entries(out_), before);
  OutputFolder({.path = out_, .overwrite = true}).begin();
  EXPECT_EQ(entries(out_), (std::vector<std::string>{".lock", "checkpoint-007", "checkpoint-best", "notes.txt"}));
}

// Whatever made such a file: it may be the user's own.
TEST_F(Output, NoFileOfItsNamesIsReplacedUnlessToldTo) {
  fs::create_directories(out_);
  for (const char* name : {"config.resolved.yaml", "trace.json", "latest", "metrics.jsonl"}) {
    put(out_ + "/" + name, "theirs");
    expect_refused({.path = out_}, {fmt::format("({})", name), "overwrite_output_dir: true"});
    fs::remove(out_ + "/" + name);
    fs::create_symlink("/nowhere", out_ + "/" + name);
    expect_refused({.path = out_}, {fmt::format("({})", name)});
    fs::remove(out_ + "/" + name);
  }
  OutputFolder output({.path = out_});
  output.begin();
  put(out_ + "/config.resolved.yaml", "theirs");
  EXPECT_THROW(output.write_config("ours"), UserError);
  EXPECT_EQ(get(out_ + "/config.resolved.yaml"), "theirs");
}

TEST_F(Output, ReplacesLinksNotWhatTheyLeadTo) {
  fs::create_directories(out_);
  put(folder_ / "precious", "theirs");
  for (const char* name : {"config.resolved.yaml", "latest", "metrics.jsonl", "trace.json"})
    fs::create_symlink(folder_ / "precious", out_ + "/" + name);
  OutputFolder output({.path = out_, .overwrite = true});
  output.begin();
  output.write_config("ours");
  output.write_latest(5);
  EXPECT_EQ(get(out_ + "/config.resolved.yaml"), "ours");
  EXPECT_EQ(get(folder_ / "precious"), "theirs");
  EXPECT_EQ(entries(out_), (std::vector<std::string>{".lock", "config.resolved.yaml", "latest"}));
}

// Such a run left an empty metrics.jsonl: the files beside it are its own.
TEST_F(Output, TakesTheFolderOfARunThatRecordedNothing) {
  fs::create_directories(out_);
  put(out_ + "/metrics.jsonl", "");
  put(out_ + "/config.resolved.yaml", "max_steps: 1");
  OutputFolder output({.path = out_});
  output.begin();
  output.write_config("max_steps: 2");
  EXPECT_EQ(entries(out_), (std::vector<std::string>{".lock", "config.resolved.yaml"}));
}

TEST_F(Output, TakesAFolderOfOtherThings) {
  fs::create_directories(out_);
  put(out_ + "/notes.txt", "x");
  put(out_ + "/metrics.jsonl", "");
  const OutputFolder output({.path = out_});
  EXPECT_TRUE(fs::exists(out_ + "/notes.txt"));
}

TEST_F(Output, OneRunAtATime) {
  auto first = std::make_unique<OutputFolder>(OutputRequest{.path = out_});
  expect_refused({.path = out_, .overwrite = true}, {"another run is using it", std::to_string(getpid())});
  first.reset();
  const OutputFolder second({.path = out_});
}

TEST_F(Output, ALockThatNoRunMadeIsLeftAlone) {
  fs::create_directories(out_);
  const std::string lock = out_ + "/.lock", told = "/.lock: is a file that no run of mixtune made";
  for (const std::string text : {"theirs", "12 34", "123456789012345678901", "1\n"}) {
    put(lock, text);
    for (const bool overwrite : {false, true}) expect_refused({.path = out_, .overwrite = overwrite}, {told});
    EXPECT_EQ(get(lock), text);
  }
  fs::remove(lock);
  put(folder_ / "precious", "17");
  fs::create_hard_link(folder_ / "precious", lock);
  expect_refused({.path = out_}, {told});
  EXPECT_EQ(get(folder_ / "precious"), "17");
  fs::remove(lock);
  fs::create_symlink(folder_ / "precious", lock);
  expect_refused({.path = out_}, {told});
  fs::remove(lock);
  fs::create_directory(lock);
  expect_user_error([&] { check_output_folder({.path = out_}); }, {told});
}

// Processes that look take a shared lock.
TEST_F(Output, WhoLooksIsInNobodysWay) {
  fs::create_directories(out_);
  const Fd other(open((out_ + "/.lock").c_str(), O_RDWR | O_CREAT, 0666));
  ASSERT_EQ(flock(other.get(), LOCK_SH), 0);
  check_output_folder({.path = out_});
  std::thread looks([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    flock(other.get(), LOCK_UN);
  });
  EXPECT_NO_THROW(OutputFolder({.path = out_}));
  looks.join();
}

TEST_F(Output, AKilledRunFreesTheFolder) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const OutputFolder output({.path = out_});
    if (write(ready[1], "x", 1) == 1) pause();
    _exit(0);
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_THROW(OutputFolder({.path = out_}), UserError);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  const OutputFolder output({.path = out_});
  close(ready[0]);
  close(ready[1]);
}

TEST_F(Output, NeverInOrOverItsInputs) {
  const std::string model = folder_ / "model";
  fs::create_directories(model);
  fs::create_symlink(model, folder_ / "link");
  for (const std::string& path : {model, model + "/", model + "/out", folder_ / "link/out", model + "/../model"})
    expect_refused({.path = path, .inputs = {model}}, {"which the run reads"});
  make_results();
  expect_refused({.path = out_, .overwrite = true, .inputs = {out_ + "/checkpoint-5"}}, {"which it would remove"});
  expect_refused({.path = out_, .overwrite = true, .inputs = {out_ + "/checkpoint-5/tokenizer.model"}},
                 {"would remove"});
  put(out_ + "/metrics.jsonl", "{}");
  for (const char* name : {"/metrics.jsonl", "/config.resolved.yaml"})
    expect_refused({.path = out_, .overwrite = true, .inputs = {out_ + name}}, {"which it would replace"});
  EXPECT_TRUE(fs::exists(out_ + "/checkpoint-5/model.safetensors"));
  check_output_folder({.path = folder_ / "model-2", .inputs = {model}});  // a longer name is not inside
  check_output_folder({.path = folder_ / "new", .inputs = {folder_ / "train.jsonl"}});
}

TEST_F(Output, LatestNamesTheCheckpoint) {
  const OutputFolder output({.path = out_});
  output.write_latest(5);
  EXPECT_EQ(get(out_ + "/latest"), "checkpoint-5\n");
  output.write_latest(10);
  EXPECT_EQ(get(out_ + "/latest"), "checkpoint-10\n");
  EXPECT_EQ(entries(out_), (std::vector<std::string>{".lock", "latest"}));
}

TEST_F(Output, PrunesTheOldest) {
  const OutputFolder output({.path = out_});
  for (const int step : {900, 1000, 50, 7}) fs::create_directories(output.checkpoint_path(step) + "/sub");
  fs::create_directories(out_ + "/checkpoint-best");
  output.prune(0);
  EXPECT_EQ(entries(out_).size(), 6u);
  output.prune(2);
  EXPECT_EQ(entries(out_), (std::vector<std::string>{".lock", "checkpoint-1000", "checkpoint-900", "checkpoint-best"}));
  output.prune(1);
  output.prune(1);
  EXPECT_EQ(entries(out_), (std::vector<std::string>{".lock", "checkpoint-1000", "checkpoint-best"}));
}

TEST_F(Output, RemovesWhatKilledRunsLeft) {
  const std::string by_ended = fmt::format(".tmp-{}-999999999-0123456789abcdef", host_name());
  for (const char* name : {".checkpoint-5", ".mine"}) fs::create_directories(out_ + "/" + name + by_ended);
  for (const char* name : {".latest", ".config.resolved.yaml"}) put(out_ + "/" + name + by_ended, "x");
  OutputFolder({.path = out_}).begin();
  EXPECT_EQ(entries(out_), (std::vector<std::string>{".lock", ".mine" + by_ended}));
}

}  // namespace
}  // namespace mixtune
