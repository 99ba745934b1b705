#include "checkpoint/output_folder.h"

#include <sys/wait.h>
#include <unistd.h>

#include <memory>

#include "checkpoint/describe.h"
#include "checkpoint/save.h"
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

  // As a finished run leaves it, with a file of the user's.
  void make_results() {
    fs::create_directories(out_ + "/checkpoint-5");
    fs::create_directories(out_ + "/checkpoint-best");
    put(out_ + "/checkpoint-5/model.safetensors", "x");
    for (const char* name : {"metrics.jsonl", "latest", "config.resolved.yaml", "notes.txt"})
      put(out_ + "/" + name, "x");
  }

  TemporaryFolder folder_;
  std::string out_ = folder_ / "out";
};

TEST_F(Output, MakesTheFolderAndItsParents) {
  const std::string deep = out_ + "/a/b";
  check_output_folder({.path = deep});
  EXPECT_FALSE(fs::exists(out_));
  const OutputFolder output({.path = deep + "/"});
  EXPECT_EQ(output.path(), deep);
  EXPECT_EQ(output.checkpoint_path(12), deep + "/checkpoint-12");
  EXPECT_TRUE(fs::is_directory(deep));
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
  const OutputFolder output({.path = out_, .overwrite = true});
  EXPECT_EQ(entries(out_), (std::vector<std::string>{".lock", "checkpoint-best", "notes.txt"}));
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
  EXPECT_TRUE(fs::exists(out_ + "/checkpoint-5/model.safetensors"));
  check_output_folder({.path = folder_ / "model-2", .inputs = {model}});  // a longer name is not inside
  check_output_folder({.path = folder_.path() + "/new", .inputs = {folder_ / "train.jsonl"}});
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
  for (const char* name : {".checkpoint-5.tmp-999999999", ".mine.tmp-999999999"})
    fs::create_directories(out_ + "/" + name);
  put(out_ + "/.latest.tmp-999999999", "x");
  const OutputFolder output({.path = out_});
  EXPECT_EQ(entries(out_), (std::vector<std::string>{".lock", ".mine.tmp-999999999"}));
}

constexpr const char* kConfig = R"({"model_type": "mixtral", "vocab_size": 10, "hidden_size": 8, "intermediate_size": 6,
  "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 3})";

TEST(Describe, Checkpoint) {
  const TemporaryFolder folder;
  State state = small_state();
  fill(state);
  save_checkpoint(state, {.out_folder = folder / "model", .config_json = kConfig, .dtype = DType::kBF16});
  put(folder / "model/tokenizer.json", "{}");
  const std::string text = describe_checkpoint(folder / "model");
  const int64_t active = state.elements() - 2 * 3 * 8 * 6;
  for (const std::string& fragment : {std::string("2 layers, hidden 8"), std::string("3 a layer, 2 for a token"),
                                      fmt::format("{}, {} active for a token", state.elements(), active),
                                      std::string("35 x BF16 (hub layout)"), std::string("in model.safetensors\n"),
                                      std::string("config.json, tokenizer.json"), std::string("tokenizer.json only")})
    EXPECT_NE(text.find(fragment), std::string::npos) << fragment << " in\n" << text;
  EXPECT_NE(
      describe_safetensors(folder / "model/model.safetensors").find("BF16     [10, 8]              lm_head.weight\n"),
      std::string::npos);
  expect_user_error([&] { describe_checkpoint(folder.path()); }, {"config.json"});
}

}  // namespace
}  // namespace mixtune
