// `mixtune train` on several CPU ranks, through the program itself: the run is that of one process, it speaks once, and
// mistakes are reported before anything starts.
#include "rank_runs.h"
#include "stored_weights.h"

namespace mixtune {
namespace {

using nlohmann::json;

TEST_F(RankRuns, TrainAsOneProcessDoes) {
  done(train("one", {"--max_steps=4", "--per_device_train_batch_size=4"}));
  done(train("four", four_ranks(4)));
  done(train("two", {"--nproc=2", "--max_steps=4", "--zero_stage=0", "--per_device_train_batch_size=2"}));
  ASSERT_EQ(metrics("one").size(), 5u);
  EXPECT_LT(metrics("one")[3]["loss"], metrics("one")[0]["loss"]);
  for (const std::string out : {"four", "two"}) {
    expect_same_metrics("one", out);
    expect_same_weights(path("one/checkpoint-4"), path(out + "/checkpoint-4"));
    EXPECT_EQ(read(path(out + "/latest")), "checkpoint-4\n");
    EXPECT_EQ(read(path(out + "/checkpoint-4/config.json")), read(path("one/checkpoint-4/config.json")));
    EXPECT_EQ(read(path(out + "/checkpoint-4/tokenizer.model")), read(path("model/tokenizer.model")));
  }
}

TEST_F(RankRuns, GlobalBatchSizeCountsTheRowsOfAllRanks) {
  done(train("one", {"--max_steps=2", "--per_device_train_batch_size=2", "--global_batch_size=8"}));
  done(train("two", {"--nproc=2", "--max_steps=2", "--per_device_train_batch_size=1", "--global_batch_size=8"}));
  expect_same_metrics("one", "two");
}

TEST_F(RankRuns, AShardedCheckpointIsAModelLikeAnother) {
  done(train("out", four_ranks(2)));
  const fs::path folder = path("out/checkpoint-2");
  const std::string text = read(folder / "model.safetensors.index.json");
  const json index = json::parse(text);
  const auto weights = weights_in(folder);
  EXPECT_EQ(weights.size(), weights_in(path("model")).size());
  EXPECT_EQ(index["weight_map"].size(), weights.size());
  for (const auto& [name, stored] : weights) {
    EXPECT_EQ(index["weight_map"].value(name, ""), stored.file) << name;
    EXPECT_EQ(count_of(text, fmt::format("\"{}\"", name)), 1) << name;
  }

  expect_part(done({"inspect", "out"}).err, "checkpoint-2");
  const auto evaluated = json::parse(
      done({"evaluate", "out/checkpoint-2", "--file=data.jsonl", "--max_seq_length=64", "--packing", "--json"}).out);
  EXPECT_NEAR(evaluated["loss"].get<double>(), metrics("out").back()["eval_loss"].get<double>(), 1e-5);

  const auto from_there = [&](const std::string& out, Args more) {
    more.insert(more.begin(), {"train", "--model_name_or_path=out/checkpoint-2", "--train_file=data.jsonl",
                               "--output_dir=" + out, "--max_seq_length=64", "--max_steps=1"});
    done(more);
  };
  from_there("alone", {"--per_device_train_batch_size=2"});
  from_there("together", {"--nproc=2", "--expert_model_parallel_size=2", "--per_device_train_batch_size=1"});
  expect_same_metrics("alone", "together");
}

TEST_F(RankRuns, DrawTheSameBlend) {
  write(work_ / "more.jsonl", "{\"input\": \"a\", \"output\": \"b\"}\n{\"input\": \"c\", \"output\": \"d\"}\n");
  const auto blend = [&](const std::string& out, Args more) {
    more.insert(more.begin(), {"train", "--model_name_or_path=model", "--datasets", "1 data.jsonl 3 more.jsonl",
                               "--output_dir=" + out, "--max_seq_length=64", "--max_steps=3", "--packing"});
    return done(more);
  };
  blend("alone", {"--per_device_train_batch_size=2"});
  const Outcome together =
      blend("together", {"--nproc=2", "--expert_model_parallel_size=2", "--per_device_train_batch_size=1"});
  expect_same_metrics("alone", "together");
  EXPECT_EQ(count_of(together.err, "more.jsonl: 2 records"), 1) << together.err;
}

TEST_F(RankRuns, SpeakOnce) {
  Args alone_args = {"--max_steps=3", "--data_cache=off"}, together_args = four_ranks(3);
  together_args.push_back("--data_cache=off");  // or the second would log that it finds one
  const Outcome alone = done(train("one", alone_args)), together = done(train("four", together_args));
  for (const char* start :
       {"step 1/3  ", "step 2/3  ", "step 3/3  ", "evaluation: ", "steps 1 to 3: ", "evaluations: "})
    EXPECT_EQ(count_of(together.out, start), count_of(alone.out, start)) << together.out;
  EXPECT_EQ(count_of(together.out, "expert imbalance "), 1) << together.out;
  EXPECT_EQ(lines_of(together.out).size(), lines_of(alone.out).size()) << together.out;
  for (const char* part : {": loaded ", "data.jsonl: 24 records", "parameters on", "router loss", ": saved "})
    EXPECT_EQ(count_of(together.err, part), count_of(alone.err, part)) << part << " in: " << together.err;
  EXPECT_EQ(count_of(together.err, ": loaded "), 1) << together.err;
  EXPECT_EQ(lines_of(together.err).size(), lines_of(alone.err).size() + 1) << together.err;  // the layout of the ranks
  expect_part(together.err, "zero_stage 1, global batch of 4 rows");
}

TEST_F(RankRuns, WarnOnce) {
  Args args = four_ranks(5);
  args.push_back("--lr_scheduler_type=warmup_stable_decay");
  args.push_back("--lr_scheduler_kwargs={num_decay_steps: 1, num_stable_steps: 1}");
  const std::string err = done(train("four", args)).err;
  EXPECT_EQ(count_of(err, "the learning rate stays at its least"), 1) << err;
}

struct Mistake {
  std::string name;
  Args args, parts;
};

void PrintTo(const Mistake& mistake, std::ostream* out) {
  *out << mistake.name;
}

class RankMistakes : public RankRuns, public testing::WithParamInterface<Mistake> {};

TEST_P(RankMistakes, AreToldInOneLineBeforeAnythingStarts) {
  const Mistake& mistake = GetParam();
  const auto before = snapshot(work_.path());
  const Outcome outcome = run(train("out", mistake.args));
  EXPECT_EQ(outcome.code, 2) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(lines_of(outcome.err).size(), 1u) << outcome.err;
  expect_one_error(outcome, mistake.parts);
  EXPECT_TRUE(snapshot(work_.path()) == before);
}

const std::string kExperts = "--expert_model_parallel_size";

const std::vector<Mistake> kRankMistakes = {
    {"ExpertsOverRanks",
     {"--nproc=4", kExperts + "=3"},
     {kExperts, "3 does not divide 4 ranks: 4 / 3 = 1 remainder 1"}},
    {"RanksOverExperts", {"--nproc=4", kExperts + "=4"}, {kExperts, "4 does not divide 2 experts", "use 1 or 2"}},
    {"ExpertsOverNoRanks", {kExperts + "=2"}, {kExperts, "2 does not divide 1 rank", "use 1"}},
    {"ExpertsOverOneRank", {"--nproc=1", kExperts + "=2"}, {kExperts, "2 does not divide 1 rank", "use 1"}},
    {"GlobalBatch",
     {"--nproc=4", "--per_device_train_batch_size=3", "--global_batch_size=32"},
     {"--global_batch_size: 32 is no multiple of", "3 x 4 ranks = 12 rows", "24 or 36"}},
    {"GlobalBatchTooSmall",
     {"--nproc=4", "--per_device_train_batch_size=3", "--global_batch_size=7"},
     {"--global_batch_size: 7 is no multiple of", "set it to 12, or to a multiple of that"}},
    {"GraphsOfRanks",
     {"--nproc=2", "--cuda_graphs", "--moe_expert_capacity_factor=1", "--moe_pad_expert_input_to_capacity"},
     {"--cuda_graphs: a graph of what ranks exchange is not supported", "train on one rank"}},
    {"NoRanks", {"--nproc=0"}, {"--nproc"}},
    {"NotANumberOfRanks", {"--nproc=many"}, {"--nproc", "many"}},
};

INSTANTIATE_TEST_SUITE_P(All, RankMistakes, testing::ValuesIn(kRankMistakes),
                         [](const auto& of) { return of.param.name; });

}  // namespace
}  // namespace mixtune
