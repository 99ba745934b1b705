// The invariance matrix: the same global batch gives the same loss, gradient norm, gradients and update on every number
// of ranks, every spread of experts and both ZeRO stages, as in one process that accumulates the same documents
// (docs/design.md, section 4). Ranks are processes that talk over TCP.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <omp.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "parallel/gloo_communicator.h"
#include "short_training.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr auto kTimeout = 60s;

// Values as files of a folder.
class FolderStore : public Store {
 public:
  explicit FolderStore(fs::path folder) : folder_(std::move(folder)) {}

  void set(const std::string& key, const std::string& value) override {
    const fs::path staged = folder_ / fmt::format("{}.{}", name(key), getpid());
    std::ofstream(staged, std::ios::binary) << value;
    fs::rename(staged, folder_ / name(key));
  }
  std::string get(const std::string& key) override {
    const auto end = std::chrono::steady_clock::now() + kTimeout;
    while (!fs::exists(folder_ / name(key))) {
      if (std::chrono::steady_clock::now() > end) throw Error("store", "no value for " + key, "");
      std::this_thread::sleep_for(1ms);
    }
    std::ifstream file(folder_ / name(key), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  static std::string name(const std::string& key) {
    std::string hex = "key-";
    for (const unsigned char c : key) hex += fmt::format("{:02x}", c);
    return hex;
  }
  fs::path folder_;
};

// ---- Records from process to process

void write(std::ostream& out, const std::vector<double>& values) {
  const uint64_t size = values.size();
  out.write(reinterpret_cast<const char*>(&size), sizeof size);
  out.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(size * sizeof(double)));
}

std::vector<double> read(std::istream& in) {
  uint64_t size = 0;
  in.read(reinterpret_cast<char*>(&size), sizeof size);
  std::vector<double> values(in ? size : 0);
  in.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(double)));
  return values;
}

auto tensors_of(auto& record) {
  return std::array{&record.gradients, &record.first_moments, &record.second_moments, &record.start, &record.weights};
}

void write(const fs::path& path, const TrainingRecord& record) {
  std::ofstream out(path, std::ios::binary);
  write(out, record.losses);
  write(out, record.norms);
  for (const TrainingRecord::Tensors* tensors : tensors_of(record)) {
    out << tensors->size() << '\n';
    for (const auto& [name, values] : *tensors) {
      out << name << '\n';
      write(out, values);
    }
  }
}

// Adds what a rank has to `record`; what two ranks have is to be the same in both, bit by bit.
void merge(const fs::path& path, TrainingRecord& record) {
  std::ifstream in(path, std::ios::binary);
  const std::vector<double> losses = read(in), norms = read(in);
  if (record.losses.empty()) record.losses = losses, record.norms = norms;
  EXPECT_EQ(losses, record.losses);
  EXPECT_EQ(norms, record.norms);
  for (TrainingRecord::Tensors* tensors : tensors_of(record)) {
    std::string line;
    std::getline(in, line);
    for (auto left = line.empty() ? 0 : std::stoll(line); left > 0; --left) {
      std::getline(in, line);
      const std::vector<double> values = read(in);
      auto& all = (*tensors)[line];
      all.resize(values.size(), std::numeric_limits<double>::quiet_NaN());
      for (size_t i = 0; i < values.size(); ++i) {
        if (std::isnan(values[i])) continue;
        if (!std::isnan(all[i]) && all[i] != values[i]) {
          ADD_FAILURE() << line << " differs between ranks, from element " << i;
          break;
        }
        all[i] = values[i];
      }
    }
  }
}

// ---- Ranks as processes

struct Grid {
  int ranks, expert_parallel, zero_stage;
};

void run_rank(const ShortTraining& run, InstanceOptions options, const Grid& grid, int rank, const fs::path& folder) {
  omp_set_num_threads(1);
  FolderStore store(folder);
  Ranks ranks = make_ranks(make_gloo_communicator(store, {.rank = rank, .size = grid.ranks, .timeout = kTimeout}),
                           {.world = grid.ranks, .rank = rank, .expert_parallel = grid.expert_parallel});
  options.ranks = &ranks;
  options.zero_stage = grid.zero_stage;
  write(folder / fmt::format("rank-{}", rank), run_training(run, options));
}

int run_rank_and_report(const ShortTraining& run, const InstanceOptions& options, const Grid& grid, int rank,
                        const fs::path& folder) {
  try {
    run_rank(run, options, grid, rank, folder);
    return testing::Test::HasFailure() ? 1 : 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "rank {}: {}\n", rank, error.what());
    return 1;
  }
}

// rows_per_micro_batch of run.layout: of all ranks together.
TrainingRecord run_ranks(ShortTraining run, const InstanceOptions& options, const Grid& grid) {
  run.layout.rows_per_micro_batch /= grid.ranks;
  const fs::path folder = fs::temp_directory_path() / fmt::format("mixtune-ranks-{}", getpid());
  fs::remove_all(folder);
  fs::create_directories(folder);
  std::fflush(nullptr);
  std::vector<pid_t> children;
  for (int rank = 0; rank < grid.ranks; ++rank) {
    const pid_t child = fork();
    if (child == 0) _exit(run_rank_and_report(run, options, grid, rank, folder));
    children.push_back(child);
  }
  TrainingRecord record;
  for (int rank = 0; rank < grid.ranks; ++rank) {
    int status = 0;
    waitpid(children[rank], &status, 0);
    EXPECT_EQ(status, 0) << "rank " << rank;
    if (status == 0) merge(folder / fmt::format("rank-{}", rank), record);
  }
  fs::remove_all(folder);
  return record;
}

// One process, in a process of its own: this one starts no threads, so that it may fork.
TrainingRecord run_alone(const ShortTraining& run, const InstanceOptions& options) {
  return run_ranks(run, options, {1, 1, 0});
}

MixtralConfig config_with_experts(int64_t experts, int64_t per_token) {
  MixtralConfig config = testing_config();
  config.num_local_experts = experts;
  config.num_experts_per_tok = per_token;
  return config;
}

void print_heading() {
  fmt::print("{:>5} {:>3} {:>4} {:>5} {:>8} {:>10} {:>10} {:>10} {:>10} {:>10}\n", "ranks", "ep", "edp", "zero",
             "dtype", "loss", "norm", "gradients", "moments", "weights");
}

void compare(const ShortTraining& run, const InstanceOptions& options, const TrainingRecord& reference,
             const Grid& grid) {
  SCOPED_TRACE(fmt::format("{} ranks, ep {}, zero {}", grid.ranks, grid.expert_parallel, grid.zero_stage));
  const bool wide = options.types.weights == DType::kF64;
  const Distance worst = expect_same(run_ranks(run, options, grid), reference, wide ? kFp64Bounds : kFp32Bounds);
  fmt::print("{:5} {:3} {:4} {:5} {:>8} {:10.1e} {:10.1e} {:10.1e} {:10.1e} {:10.1e}\n", grid.ranks,
             grid.expert_parallel, grid.ranks / grid.expert_parallel, grid.zero_stage,
             dtype_name(options.types.weights), worst.loss, worst.norm, worst.gradients, worst.moments, worst.weights);
}

void compare_all(const ShortTraining& run, const InstanceOptions& options, std::initializer_list<int> counts) {
  const TrainingRecord reference = run_alone(run, options);
  print_heading();
  for (const int ranks : counts)
    for (int ep = 1; ep <= ranks; ep *= 2)
      for (const int zero_stage : {0, 1})
        if (run.config.num_local_experts % ep == 0) compare(run, options, reference, {ranks, ep, zero_stage});
}

// 19 documents of 2 to 60 tokens, about half of them without a target; in the last of three accumulation steps some
// ranks have no row.
class Matrix : public testing::TestWithParam<DType> {
 protected:
  ShortTraining run_ = {
      .config = config_with_experts(8, 2), .layout = {false, 8, 3}, .router_coefficient = 0.02, .documents = 19};
  InstanceOptions options_ = {.types = StateTypes::all(GetParam())};
};

TEST_P(Matrix, EveryLayoutGivesTheSameUpdate) {
  compare_all(run_, options_, {1, 2, 4, 8});
}

TEST_P(Matrix, RecomputationToo) {
  const TrainingRecord reference = run_alone(run_, options_);
  print_heading();
  for (const Recompute recompute : {Recompute::kSelective, Recompute::kFull}) {
    options_.recompute = recompute;
    compare(run_, options_, reference, {4, 2, 1});
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, Matrix, testing::Values(DType::kF32, DType::kF64),
                         [](const auto& of) { return std::string(dtype_name(of.param)); });

InstanceOptions fp32_options() {
  return {.types = StateTypes::all(DType::kF32)};
}

TEST(RoutingExtremes, AllTokensToOneExpert) {
  compare_all({.config = config_with_experts(8, 1), .layout = {false, 8, 2}, .documents = 13, .equal_logits = true},
              fp32_options(), {2, 8});
}

TEST(RoutingExtremes, AllTokensToTheFirstExperts) {
  compare_all({.config = config_with_experts(4, 2), .layout = {false, 8, 1}, .documents = 8, .equal_logits = true},
              fp32_options(), {4});
}

TEST(RoutingExtremes, AsManyExpertsAsRanks) {
  compare_all({.config = config_with_experts(4, 1), .layout = {false, 8, 1}, .documents = 8}, fp32_options(), {4});
}

TEST(RoutingExtremes, RanksWithoutATokenAndBatchesOfOneTarget) {
  compare_all({.config = config_with_experts(8, 2), .layout = {false, 8, 1}, .documents = 3, .longest = 2},
              fp32_options(), {8});
}

}  // namespace
}  // namespace mixtune
