#include "train/parallel_report.h"

#include <gtest/gtest.h>

#include <csignal>
#include <thread>

#include "parallel/gloo_communicator.h"
#include "parallel/testing.h"
#include "train/step_runner.h"
#include "train/testing.h"

namespace mixtune {
namespace {

using namespace std::chrono_literals;

// Two steps of two micro-batches, of 10 tokens on rank 0 and of 40 on rank 1; returns the record of the second.
ParallelRecord run_rank(Store& store, int rank, int zero_stage) {
  Ranks ranks = make_ranks(make_gloo_communicator(store, {.rank = rank, .size = 2, .timeout = 10s}),
                           {.world = 2, .rank = rank, .expert_parallel = 2});
  TestModel model(testing_config(), {.types = StateTypes::all(DType::kF32), .ranks = &ranks, .zero_stage = zero_stage});
  const TestData data(testing_config().vocab_size, {rank == 0 ? 10 : 40});
  Batch batch = data.batch();
  batch.step_tokens = 50;
  const std::vector<Batch> batches = {batch, batch};
  StepRunner runner(model, {}, 0);
  ParallelRecord record;
  for (const int64_t step : {1, 2}) {
    runner.forward_backward(batches, {.target_weight = 60});
    runner.update({.step = step, .lr_share = 1, .max_norm = 1});
    record = *runner.read().parallel;
  }
  return record;
}

std::vector<ParallelRecord> run_ranks(int zero_stage) {
  std::signal(SIGPIPE, SIG_IGN);  // as the program does
  MemoryStore store(10s);
  std::vector<ParallelRecord> records(2);
  std::thread second([&] { records[1] = run_rank(store, 1, zero_stage); });
  records[0] = run_rank(store, 0, zero_stage);
  second.join();
  return records;
}

TEST(ParallelReport, TellsEveryRankOfAll) {
  const auto records = run_ranks(1);
  for (const ParallelRecord& record : records) {
    ASSERT_EQ(record.ranks.size(), 2u);
    EXPECT_EQ(record.ranks[0].tokens, 20);
    EXPECT_EQ(record.ranks[1].tokens, 80);
    for (const RankRecord& rank : record.ranks) {
      EXPECT_GT(rank.exchange_milliseconds, 0);
      EXPECT_GE(rank.exchange_exposed_milliseconds, rank.exchange_milliseconds);  // nothing runs beside on a CPU
      EXPECT_GT(rank.gradient_sum_milliseconds, 0);
      EXPECT_GT(rank.weight_gather_milliseconds, 0);
      EXPECT_GT(rank.memory_gib, 0);
      EXPECT_GT(rank.collective_milliseconds,
                rank.exchange_milliseconds + rank.gradient_sum_milliseconds + rank.weight_gather_milliseconds);
    }
    // Of a pair whose expert is elsewhere go, each in one direction: input, output and their gradients; its weight, and
    // that one's gradient. All fp32.
    const MixtralConfig config = testing_config();
    const int64_t pair = 4 * (4 * config.hidden_size + 2);
    const int64_t bytes = record.ranks[0].exchange_bytes + record.ranks[1].exchange_bytes;
    EXPECT_GT(bytes, 0);
    EXPECT_EQ(bytes % pair, 0);
    EXPECT_LE(bytes / pair, 100 * config.num_hidden_layers * config.num_experts_per_tok);
  }
}

TEST(ParallelReport, HasNoGatherWhereEachRankUpdatesAll) {
  const auto records = run_ranks(0);
  for (const RankRecord& rank : records[0].ranks) {
    EXPECT_EQ(rank.weight_gather_milliseconds, 0);
    EXPECT_GT(rank.gradient_sum_milliseconds, 0);
  }
}

TEST(ParallelReport, IsNoneForOneRank) {
  TestModel model(testing_config(), DType::kF32);
  const TestData data(testing_config().vocab_size, {10});
  const std::vector<Batch> batches = {data.batch()};
  StepRunner runner(model, {}, 0);
  runner.forward_backward(batches, {.target_weight = 5});
  runner.update({.step = 1, .lr_share = 1, .max_norm = 1});
  EXPECT_EQ(runner.read().parallel, nullptr);
}

}  // namespace
}  // namespace mixtune
