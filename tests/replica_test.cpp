// A weight for which two ranks hold different bits is found before one of them is saved. Ranks are processes that talk
// over TCP.
#include "base/test_paths.h"
#include "config/load.h"
#include "rank_processes.h"
#include "train/trainer.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;

// The bit that flips in one rank's weight after its first step: in the first parameter of experts, or in the first
// other one.
struct Flip {
  int rank = -1;  // -1: none
  bool of_experts = false;
};

Config config_of(const fs::path& folder, int expert_parallel) {
  const std::string fixture = source_path("tests/fixtures/hf/plain");
  return load_config(std::nullopt, {{"model_name_or_path", fixture},
                                    {"train_file", fixture + "/train.jsonl"},
                                    {"output_dir", (folder / "out").string()},
                                    {"data_cache", "off"},
                                    {"device", "cpu"},
                                    {"max_steps", "1"},
                                    {"max_seq_length", "64"},
                                    {"per_device_train_batch_size", "1"},
                                    {"zero_stage", "0"},
                                    {"expert_model_parallel_size", std::to_string(expert_parallel)}});
}

void flip(State& state, bool of_experts) {
  int param = 0;
  while (state.spec(param).of_experts != of_experts) ++param;
  reinterpret_cast<uint32_t*>(state.weight(param).as<float>())[5] ^= 1;
}

// The error of the rank's save, or "".
std::string try_to_save(Trainer& trainer) {
  try {
    trainer.save(1);
    trainer.finish();
  } catch (const Error& error) {
    return fmt::format("{} {}", static_cast<int>(error.exit_code()), error.what());
  }
  return "";
}

void train_and_save(const Grid& grid, int rank, const Flip& flipped, const fs::path& folder, const fs::path& said) {
  omp_set_num_threads(1);
  FolderStore store(folder);
  Device device;
  const Ranks ranks = connect_rank(store, device, grid, rank);
  Trainer trainer(config_of(folder, grid.expert_parallel), ranks);
  trainer.open_output();
  trainer.step(1);
  if (rank == flipped.rank) flip(trainer.instance().state(), flipped.of_experts);
  std::ofstream(said) << try_to_save(trainer);
}

class Replicas : public testing::Test {
 protected:
  // Each rank's error.
  std::vector<std::string> run(const Grid& grid, const Flip& flipped) {
    std::vector<std::string> texts;
    const auto save = [&](int rank) {
      train_and_save(grid, rank, flipped, folder_.path(), said_by(rank));
    };
    if (!succeed_in_processes(grid.ranks, save)) return texts;
    for (int rank = 0; rank < grid.ranks; ++rank) {
      std::ifstream file(said_by(rank));
      texts.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    return texts;
  }

  void expect_refused(const Grid& grid, const Flip& flipped, const std::string& what) {
    const std::vector<std::string> texts = run(grid, flipped);
    ASSERT_EQ(texts.size(), static_cast<size_t>(grid.ranks));
    EXPECT_TRUE(texts[0].starts_with("1 step 1: " + what)) << texts[0];
    for (const std::string& text : texts) EXPECT_EQ(text, texts[0]);
    for (const auto& entry : fs::directory_iterator(folder_.path() / "out"))
      EXPECT_EQ(entry.path().filename().string().find("checkpoint"), std::string::npos) << entry.path();
    EXPECT_FALSE(fs::exists(folder_.path() / "out/latest"));
  }

  TempFolder folder_;

 private:
  fs::path said_by(int rank) const { return folder_.path() / fmt::format("rank-{}", rank); }
};

TEST_F(Replicas, OfTheSameBitsAreSaved) {
  EXPECT_EQ(run({4, 2, 0}, {}), std::vector<std::string>(4));
  EXPECT_TRUE(fs::exists(folder_.path() / "out/checkpoint-1"));
}

// With two ranks nobody can tell which of them is right.
TEST_F(Replicas, OneFlippedBitOfTwoRanks) {
  expect_refused({2, 1, 0}, {0},
                 "rank 1 does not hold the bits that rank 0 holds of model.embed_tokens.weight; nothing is saved");
}

TEST_F(Replicas, TheRankThatMostDisagreeWith) {
  expect_refused({4, 2, 0}, {0},
                 "rank 0 does not hold the bits that rank 1 holds of model.embed_tokens.weight; nothing is saved");
}

// Ranks 1 and 3 hold the same experts; ranks 0 and 2 the others.
TEST_F(Replicas, OfExperts) {
  expect_refused({4, 2, 0}, {3, true}, "rank 3 does not hold the bits that rank 1 holds of ");
}

}  // namespace
}  // namespace mixtune
