// A short training on ranks that are processes, on CPUs over TCP or on GPUs through NCCL, and the training that its
// numbers are compared with. The process that starts them may have neither threads nor a GPU.
#pragma once

#include <fmt/format.h>
#include <omp.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "base/temp_folder.h"
#include "parallel/gloo_communicator.h"
#include "parallel/nccl_communicator.h"
#include "parallel/ranks.h"
#include "short_training.h"

namespace mixtune {

inline constexpr std::chrono::seconds kRankTimeout{60};

// Keeps values as files of a folder. No two ranks may use the same key here.
class FolderStore : public Store {
 public:
  explicit FolderStore(std::filesystem::path folder) : folder_(std::move(folder)) {}

  void set(const std::string& key, const std::string& value) override {
    const std::filesystem::path staged = folder_ / fmt::format("{}.{}", name(key), getpid());
    std::ofstream(staged, std::ios::binary) << value;
    std::filesystem::rename(staged, folder_ / name(key));
  }
  std::string get(int /*rank*/, const std::string& key) override {
    const auto end = std::chrono::steady_clock::now() + kRankTimeout;
    while (!std::filesystem::exists(folder_ / name(key))) {
      if (std::chrono::steady_clock::now() > end) throw Error("store", "no value for " + key, "");
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
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
  std::filesystem::path folder_;
};

inline void write(std::ostream& out, const std::vector<double>& values) {
  const uint64_t size = values.size();
  out.write(reinterpret_cast<const char*>(&size), sizeof size);
  out.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(size * sizeof(double)));
}

inline std::vector<double> read(std::istream& in) {
  uint64_t size = 0;
  in.read(reinterpret_cast<char*>(&size), sizeof size);
  std::vector<double> values(in ? size : 0);
  in.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(double)));
  return values;
}

inline auto tensors_of(auto& record) {
  return std::array{&record.gradients, &record.first_moments, &record.second_moments, &record.start, &record.weights};
}

inline void write(const std::filesystem::path& path, const TrainingRecord& record) {
  std::ofstream out(path, std::ios::binary);
  write(out, record.losses);
  write(out, record.norms);
  write(out, record.exchanged);
  for (const TrainingRecord::Tensors* tensors : tensors_of(record)) {
    out << tensors->size() << '\n';
    for (const auto& [name, values] : *tensors) {
      out << name << '\n';
      write(out, values);
    }
  }
}

// Adds a rank's values to `record`; those that two ranks have must be the same, bit by bit.
inline void merge(const std::filesystem::path& path, TrainingRecord& record) {
  std::ifstream in(path, std::ios::binary);
  const std::vector<double> losses = read(in), norms = read(in), exchanged = read(in);
  if (record.losses.empty()) record.losses = losses, record.norms = norms, record.exchanged = exchanged;
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

struct Grid {
  int ranks, expert_parallel, zero_stage;
};

// Connects a rank; on GPUs, rank r computes on GPU r.
inline Ranks connect_rank(Store& store, Device& device, const Grid& grid, int rank) {
  const RankGrid place = {.world = grid.ranks, .rank = rank, .expert_parallel = grid.expert_parallel};
  if (device.type == DeviceType::kCpu)
    return make_ranks(make_gloo_communicator(store, {.rank = rank, .size = grid.ranks, .timeout = kRankTimeout}),
                      place);
  device.index = rank;
  return make_ranks(make_nccl_communicator(store, rank, grid.ranks, device), place);
}

inline void run_rank(const ShortTraining& run, InstanceOptions options, const Grid& grid, int rank,
                     const std::filesystem::path& folder) {
  omp_set_num_threads(1);
  FolderStore store(folder);
  const Ranks ranks = connect_rank(store, options.device, grid, rank);
  options.ranks = &ranks;
  options.zero_stage = grid.zero_stage;
  write(folder / fmt::format("rank-{}", rank), run_training(run, options));
}

inline bool succeeds(int rank, const std::function<void(int rank)>& run) {
  try {
    run(rank);
    return !testing::Test::HasFailure();
  } catch (const std::exception& error) {
    fmt::print(stderr, "rank {}: {}\n", rank, error.what());
    return false;
  }
}

// Waits for all; the first that fails ends the others, which may wait for it on a GPU.
inline bool all_succeed(const std::vector<pid_t>& children) {
  bool success = true;
  for (size_t ended = 0; ended < children.size(); ++ended) {
    int status = 0;
    const pid_t child = waitpid(-1, &status, 0);
    if (status == 0 || !success) continue;
    success = false;
    ADD_FAILURE() << "rank " << std::ranges::find(children, child) - children.begin() << " ended with " << status;
    for (const pid_t other : children)
      if (other != child) kill(other, SIGKILL);
  }
  return success;
}

// Runs each rank in a process of its own, which fails where `run` throws or an expectation of it does not hold. Whether
// all succeeded.
inline bool succeed_in_processes(int ranks, const std::function<void(int rank)>& run) {
  std::fflush(nullptr);
  std::vector<pid_t> children;
  for (int rank = 0; rank < ranks; ++rank) {
    const pid_t child = fork();
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      _exit(succeeds(rank, run) ? 0 : 1);
    }
    children.push_back(child);
  }
  return all_succeed(children);
}

// Trains on the ranks of the grid; rows_per_micro_batch of run.layout is that of all ranks together.
inline TrainingRecord run_ranks(ShortTraining run, const InstanceOptions& options, const Grid& grid) {
  run.layout.rows_per_micro_batch /= grid.ranks;
  const TempFolder temporary;
  const std::filesystem::path& folder = temporary.path();
  TrainingRecord record;
  if (succeed_in_processes(grid.ranks, [&](int rank) { run_rank(run, options, grid, rank, folder); }))
    for (int rank = 0; rank < grid.ranks; ++rank) merge(folder / fmt::format("rank-{}", rank), record);
  return record;
}

// Trains as on a machine where nothing was measured before.
inline TrainingRecord run_with_new_cache(const ShortTraining& run, InstanceOptions options, const Grid& grid) {
  const TempFolder cache;
  options.gpu.plan_cache = cache.path();
  return run_ranks(run, options, grid);
}

inline void expect_same_bits(TrainingRecord first, TrainingRecord second) {
  EXPECT_EQ(first.losses.size(), static_cast<size_t>(ShortTraining::kSteps));
  EXPECT_EQ(first.losses, second.losses);
  EXPECT_EQ(first.norms, second.norms);
  for (size_t i = 0; i < tensors_of(first).size(); ++i) EXPECT_TRUE(*tensors_of(first)[i] == *tensors_of(second)[i]);
}

// Expects that another run of the same ranks gives the same bits.
inline void expect_same_bits(const ShortTraining& run, const InstanceOptions& options, const Grid& grid) {
  SCOPED_TRACE(
      fmt::format("{}, ep {}, zero {}", dtype_name(options.types.weights), grid.expert_parallel, grid.zero_stage));
  expect_same_bits(run_with_new_cache(run, options, grid), run_with_new_cache(run, options, grid));
}

// Trains on one rank, in a process of its own: this one starts no threads, so that it may fork.
inline TrainingRecord run_alone(const ShortTraining& run, const InstanceOptions& options) {
  return run_ranks(run, options, {1, 1, 0});
}

inline void print_heading() {
  fmt::print("{:>5} {:>3} {:>4} {:>5} {:>8} {:>10} {:>10} {:>10} {:>10} {:>10}\n", "ranks", "ep", "edp", "zero",
             "dtype", "loss", "norm", "gradients", "moments", "weights");
}

inline void compare(const ShortTraining& run, const InstanceOptions& options, const TrainingRecord& reference,
                    const Grid& grid) {
  SCOPED_TRACE(fmt::format("{} ranks, ep {}, zero {}", grid.ranks, grid.expert_parallel, grid.zero_stage));
  const bool wide = options.types.weights == DType::kF64;
  const Distance worst = expect_same(run_ranks(run, options, grid), reference, wide ? kFp64Bounds : kFp32Bounds);
  fmt::print("{:5} {:3} {:4} {:5} {:>8} {:10.1e} {:10.1e} {:10.1e} {:10.1e} {:10.1e}\n", grid.ranks,
             grid.expert_parallel, grid.ranks / grid.expert_parallel, grid.zero_stage,
             dtype_name(options.types.weights), worst.loss, worst.norm, worst.gradients, worst.moments, worst.weights);
}

inline void compare_all(const ShortTraining& run, const InstanceOptions& options, std::initializer_list<int> counts) {
  const TrainingRecord reference = run_alone(run, options);
  print_heading();
  for (const int ranks : counts)
    for (int ep = 1; ep <= ranks; ep *= 2)
      for (const int zero_stage : {0, 1})
        if (run.config.num_local_experts % ep == 0) compare(run, options, reference, {ranks, ep, zero_stage});
}

}  // namespace mixtune
