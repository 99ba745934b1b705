// `mixtune evaluate` and `mixtune generate` on several CPU ranks, through the program itself: they say what one process
// says, once, and end as a whole.
#include <csignal>

#include "base/test_paths.h"
#include "rank_runs.h"
#include "stored_weights.h"

namespace mixtune {
namespace {

using nlohmann::json;

const Args kTwo = {"--nproc=2"}, kByExperts = {"--nproc=2", "--expert_model_parallel_size=2"},
           kFour = {"--nproc=4", "--expert_model_parallel_size=2"};

class InferenceRanks : public RankRuns {
 protected:
  static Args with(Args args, const Args& more) {
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  static Args evaluate(const Args& more) {
    return with({"evaluate", "model", "--file=data.jsonl", "--max_seq_length=64"}, more);
  }
  // Of a model whose texts are texts.
  static Args generate(const Args& more) {
    return with({"generate", source_path("examples/quickstart/pretrained")}, more);
  }

  // Those that this machine has: a rank has a GPU to itself.
  static std::vector<Args> layouts() {
    if (!on_gpus()) return {kTwo, kByExperts, kFour};
    return promised_gpus() > 1 ? std::vector<Args>{kTwo, kByExperts} : std::vector<Args>{};
  }

  // Expects the losses of evaluations to be those of one rank by the criteria of docs/design.md, section 4.
  void expect_same_evaluation(const Args& args) const {
    const json alone = json::parse(done(with(args, {"--json"})).out);
    for (const Args& layout : layouts()) {
      SCOPED_TRACE(fmt::format("{}", fmt::join(with(args, layout), " ")));
      const Outcome outcome = done(with(with(args, layout), {"--json"}));
      ASSERT_EQ(lines_of(outcome.out).size(), 1u);
      const json record = json::parse(outcome.out);
      const double loss = alone["loss"];
      EXPECT_NEAR(record["loss"].get<double>(), loss, 1e-6 * loss);
      EXPECT_EQ(record["tokens"], alone["tokens"]);
    }
  }

  void expect_same_output(const Args& args) const {
    const Outcome alone = done(args);
    EXPECT_NE(alone.out, "");
    for (const Args& layout : layouts()) {
      SCOPED_TRACE(fmt::format("{}", fmt::join(with(args, layout), " ")));
      const Outcome outcome = done(with(args, layout));
      EXPECT_EQ(outcome.out, alone.out);
      expect_same_messages(outcome, alone);
    }
  }

  // Ranks on GPUs say what connects them.
  static void expect_same_messages(const Outcome& outcome, const Outcome& alone) {
    if (!on_gpus()) {
      EXPECT_EQ(outcome.err, alone.err);
    }
  }

  void expect_refused(const Args& args, const Args& parts) const {
    const auto before = snapshot(work_.path());
    const Outcome outcome = run(args);
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    expect_one_error(outcome, parts);
    EXPECT_TRUE(snapshot(work_.path()) == before);
  }

  // A conversation that has begun, until `signal` comes to its process `rank`.
  Outcome interrupted_talk(int rank, int signal) const {
    const std::string script =
        fmt::format("mkfifo in; sleep 60 > in & exec \"$0\" {} < in > said",
                    fmt::join(with(generate({"--chat", "--max-new-tokens=1"}), kByExperts), " "));
    return interrupted([&] { return run_shell(script, work_.path()); }, [&] { return processes().size() == 3; }, rank,
                       signal);
  }
};

// In every layout each document is counted once, though each rank reads its own: 24 of them in batches of different
// sizes, and so few that ranks have none.
TEST_F(InferenceRanks, EvaluateAsOneProcessDoes) {
  expect_same_evaluation(evaluate({}));
  expect_same_evaluation(evaluate({"--per_device_train_batch_size=5", "--data_cache=off"}));
  expect_same_evaluation(evaluate({"--packing", "--per_device_train_batch_size=2"}));
  write(path("data.jsonl"), "{\"input\": \"Define: otter\", \"output\": \"an animal\"}\n");
  expect_same_evaluation(evaluate({}));
}

TEST_F(InferenceRanks, EvaluateSaysOnceWhatOneProcessSays) {
  json config = json::parse(read(path("model/config.json")));
  config["of_a_later_version"] = 1;
  write(path("model/config.json"), config.dump());
  const Outcome alone = done(evaluate({"--data_cache=off"}));
  EXPECT_EQ(count_of(alone.err, "keys that mixtune does not know are ignored: of_a_later_version\n"), 1) << alone.err;
  for (const Args& layout : layouts()) expect_same_messages(done(with(evaluate({"--data_cache=off"}), layout)), alone);
}

// On a GPU, where a base in 4 bits asks for bf16, in which layouts differ, beside the plain base alone.
TEST_F(InferenceRanks, ReadAdapters) {
  std::vector<Args> bases = {{}};
  if (!on_gpus()) bases.push_back({"--base_precision=nf4"});
  done(train("out",
             {on_gpus() ? "--adapter=lora" : "--adapter=qlora", "--lora_r=8", "--lora_alpha=256", "--max_steps=2"}));
  write(path("prompts.jsonl"), "\"Define: otter\"\n\"a\"\n\"b\"\n");
  for (const Args& base : bases) {
    expect_same_evaluation(with({"evaluate", "out", "--file=data.jsonl", "--max_seq_length=64"}, base));
    expect_same_output(with({"generate", "out", "--prompts=prompts.jsonl", "--max-new-tokens=20"}, base));
  }
  EXPECT_NE(loss_of({"out"}), loss_of({"model"}));
}

// Greedy and drawn; ids, a text, and a turn.
TEST_F(InferenceRanks, GenerateWhatOneProcessGenerates) {
  expect_same_output(generate({"--ids=1,345,1200", "--max-new-tokens=20"}));
  expect_same_output(generate({"--prompt=Once upon a time", "--max-new-tokens=40"}));
  expect_same_output(
      generate({"--prompt=Once upon a time", "--max-new-tokens=40", "--temperature=1", "--top-p=0.9", "--seed=7"}));
  expect_same_output(generate({"--chat", "--system=Be brief.", "--prompt=Define: daisy", "--max-new-tokens=20"}));
  expect_same_output(generate({"--prompt", "--nproc", "--max-new-tokens=6", "--seed=3"}));  // a text like any other
}

// More prompts than a batch, fewer than ranks in the last, and texts that end at different times.
TEST_F(InferenceRanks, GenerateTheTextsOfAFileInItsOrder) {
  std::string prompts;
  for (int i = 0; i < 7; ++i) prompts += fmt::format("\"Define: otter\\n {} {}\"\n", i, std::string(i, 'a'));
  write(path("prompts.jsonl"), prompts);
  for (const char* batch : {"--batch=3", "--batch=1", "--batch=100"}) {
    expect_same_output(generate({"--prompts=prompts.jsonl", "--max-new-tokens=20", batch}));
    expect_same_output(generate({"--prompts=prompts.jsonl", "--max-new-tokens=20", batch, "--temperature=1.2"}));
  }
  EXPECT_EQ(lines_of(done(generate({"--prompts=prompts.jsonl", "--max-new-tokens=3"})).out).size(), 7u);
}

TEST_F(InferenceRanks, WriteTheLogitsOfOneProcess) {
  const auto logits = [&](const std::string& folder, const Args& layout) {
    fs::create_directory(path(folder));
    done(with(generate({"--ids=1,345,1200", "--max-new-tokens=2", "--logits=" + folder + "/logits.safetensors"}),
              layout));
    return weights_in(path(folder)).at("logits").values;
  };
  const std::vector<float> alone = logits("alone", {});
  for (const Args& layout : layouts()) {
    fs::remove_all(path("ranks"));
    const std::vector<float> all = logits("ranks", layout);
    ASSERT_EQ(all.size(), alone.size());
    for (size_t i = 0; i < all.size(); ++i) ASSERT_NEAR(all[i], alone[i], 1e-4) << i;
  }
}

// Rank 0 alone reads the turns. While it waits for one longer than a rank may stand still, the others wait.
TEST_F(InferenceRanks, TalkAsOneProcessDoes) {
  const auto talk = [&](const Args& layout) {
    return run_shell(fmt::format("(printf 'Define: otter\\n \\nWhy?\\n'; sleep 3; printf 'And then?\\n') | \"$0\" {}",
                                 fmt::join(with(generate({"--chat", "--max-new-tokens=8"}), layout), " ")),
                     work_.path());
  };
  const Outcome alone = talk({});
  EXPECT_EQ(lines_of(alone.out).size(), 3u) << alone.err;
  for (const Args& layout : layouts()) {
    const Outcome outcome = talk(with(layout, {"--collective_timeout=1.5"}));
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(outcome.out, alone.out);
    expect_same_messages(outcome, alone);
  }
}

// So many that the first batch does not fit into the pipe, whose reader begins after longer than a rank may stand
// still.
TEST_F(InferenceRanks, WaitForWhoReadsTheirTexts) {
  std::string prompts;
  for (int i = 0; i < 1200; ++i) prompts += fmt::format("\"{} {}\"\n", std::string(70, '='), i);
  write(path("prompts.jsonl"), prompts);
  const Args args = {"generate", "model", "--prompts=prompts.jsonl", "--batch=1000", "--max-new-tokens=1"};
  const Outcome alone = done(args);
  EXPECT_GT(alone.out.size(), size_t{64} << 10);
  for (const Args& layout : layouts()) {
    const Outcome outcome = run_shell(
        fmt::format("\"$0\" {} --collective_timeout=1.5 | (sleep 3; cat)", fmt::join(with(args, layout), " ")),
        work_.path());
    EXPECT_EQ(outcome.out, alone.out);
    EXPECT_EQ(count_of(outcome.err, "error"), 0) << outcome.err;
  }
}

TEST_F(InferenceRanks, EndWhereTheirTextsCannotBeWritten) {
  std::string prompts;
  for (int i = 0; i < 300; ++i) prompts += fmt::format("\"{} {}\"\n", std::string(70, '='), i);
  write(path("prompts.jsonl"), prompts);
  const Args args = {"generate", "model", "--prompts=prompts.jsonl", "--batch=300", "--max-new-tokens=1"};
  for (const Args& layout : layouts()) {
    const Outcome outcome =
        run_shell(fmt::format("\"$0\" {} > /dev/full", fmt::join(with(args, layout), " ")), work_.path());
    EXPECT_EQ(outcome.code, 1);
    expect_part(outcome.err, "standard output: cannot be written in full");
    EXPECT_EQ(count_of(outcome.err, "error"), 1) << outcome.err;
  }
}

TEST_F(InferenceRanks, ATurnThatIsNoTextEndsAll) {
  if (layouts().empty()) GTEST_SKIP() << "needs two GPUs";
  const Outcome outcome = run_shell(fmt::format("printf 'a\\nb\\377\\n' | \"$0\" {}",
                                                fmt::join(with(generate({"--chat", "--max-new-tokens=2"}), kTwo), " ")),
                                    work_.path());
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(count_of(outcome.err, "error"), 1) << outcome.err;
  expect_part(outcome.err, "standard input:2: is not text in UTF-8");
  expect_no_process_left();
}

TEST_F(InferenceRanks, AReaderThatLeavesEndsAll) {
  if (layouts().empty()) GTEST_SKIP() << "needs two GPUs";
  const Outcome outcome =
      run_shell(fmt::format("(\"$0\" {}; echo \"ended with $?\" >&2) | head -c 3",
                            fmt::join(with(generate({"--prompt=Once", "--max-new-tokens=2000"}), kByExperts), " ")),
                work_.path());
  EXPECT_EQ(outcome.out.size(), 3u);
  EXPECT_EQ(count_of(outcome.err, "mixtune: error: "), 1) << outcome.err;
  expect_part(outcome.err, "standard output: cannot be written in full");
  expect_part(outcome.err, "ended with 1");
  expect_no_process_left();
}

TEST_F(InferenceRanks, EndWhenOneIsKilled) {
  if (layouts().empty()) GTEST_SKIP() << "needs two GPUs";
  const Outcome outcome = interrupted_talk(1, SIGKILL);
  EXPECT_EQ(outcome.code, 1);
  expect_part(outcome.err, "mixtune: error: rank 1 was killed by signal 9 (Killed)");
  EXPECT_EQ(count_of(outcome.err, "error"), 1) << outcome.err;
  expect_no_process_left();
}

TEST_F(InferenceRanks, EndWhenTheirLauncherIsInterrupted) {
  if (layouts().empty()) GTEST_SKIP() << "needs two GPUs";
  const Outcome outcome = interrupted_talk(kLauncher, SIGINT);
  EXPECT_EQ(outcome.code, 130);
  expect_part(outcome.err, "mixtune: error: stopped by signal 2 (Interrupt)");
  EXPECT_EQ(count_of(outcome.err, "error"), 1) << outcome.err;
  expect_no_process_left();
}

TEST_F(InferenceRanks, EvaluateEndsWhenOneIsKilled) {
  if (layouts().empty()) GTEST_SKIP() << "needs two GPUs";
  std::string text = read(path("data.jsonl"));
  for (int i = 0; i < 12; ++i) text += text;
  write(path("data.jsonl"), text);
  for (const auto& [rank, signal] : {std::pair(1, SIGKILL), std::pair(kLauncher, SIGINT)}) {
    const Outcome outcome =
        interrupted([&] { return run(with(evaluate({"--per_device_train_batch_size=1"}), kByExperts)); },
                    [&] { return processes().size() == 3; }, rank, signal);
    EXPECT_EQ(outcome.code, signal == SIGINT ? 130 : 1) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    expect_one_error(outcome, {signal == SIGINT ? "stopped by signal 2 (Interrupt)" : "rank 1 was killed by signal 9"});
    expect_no_process_left();
  }
}

TEST_F(InferenceRanks, MistakesAreToldInOneLineBeforeAnythingStarts) {
  const std::string experts = "--expert_model_parallel_size";
  for (const Args& command : {evaluate({}), generate({"--prompt=a"}), generate({"--chat"})}) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(command, " ")));
    expect_refused(with(command, {experts + "=2"}), {experts, "2 does not divide 1 rank", "use 1"});
    expect_refused(with(command, {"--nproc=3", experts + "=2"}), {experts, "2 does not divide 3 ranks"});
    expect_refused(with(command, {"--nproc=0"}), {"--nproc"});
    if (!on_gpus()) expect_refused(with(command, {"--nproc=2", "--precision=bf16"}), {"--precision: bf16 needs a GPU"});
  }
  expect_refused({"evaluate", "model", "--file=data.jsonl", "--nproc=8", experts + "=8"},
                 {experts, "8 does not divide 2 experts"});
  expect_refused({"evaluate", "model", "--file=none", "--nproc=2"}, {"--file: 'none'"});
  expect_refused({"generate", "none", "--prompt=a", "--nproc=2"}, {"MODEL: ", "'none'"});
  expect_refused({"generate", "model", "--ids=1,4096", "--nproc=2"}, {"prompt: token id 4096"});
  write(path("prompts.jsonl"), "\"a\"\n7\n");
  expect_refused({"generate", "model", "--prompts=prompts.jsonl", "--nproc=2"}, {"prompts.jsonl:2"});
  expect_refused({"generate", "model", "--ids=1", "--logits=data.jsonl", "--nproc=2"}, {"data.jsonl"});
}

TEST_F(InferenceRanks, ComeFromAnotherLauncher) {
  if (layouts().empty()) GTEST_SKIP() << "needs two GPUs";
  write(path("prompts.jsonl"), "\"Define: otter\"\n\"a\"\n\"b\"\n");
  const Args evaluation = evaluate({"--per_device_train_batch_size=2"}),
             generation = generate({"--prompts=prompts.jsonl", "--max-new-tokens=20"});
  const std::string loss = done(evaluation).out, texts = done(generation).out;
  for (const auto& [command, out] : {std::pair(evaluation, loss), std::pair(generation, texts)}) {
    const Outcome outcome = run_shell(launch_two(with(command, {"--expert_model_parallel_size=2"}), ""), work_.path());
    EXPECT_EQ(outcome.out, "0\n0\n") << outcome.err;
    EXPECT_EQ(read(path("out.0")), out);
    EXPECT_EQ(read(path("out.1")), "");
  }
}

TEST_F(InferenceRanks, ThatDifferEndBeforeTheyBegin) {
  if (layouts().empty()) GTEST_SKIP() << "needs two GPUs";
  fs::create_directory(path("other"));
  fs::create_directory_symlink(path("model"), path("other/model"));
  fs::create_symlink("../data.jsonl", path("other/data.jsonl"));
  write(path("prompts.jsonl"), "\"a\"\n");
  write(path("other/prompts.jsonl"), "\"b\"\n");
  const auto expect_different = [&](const Args& command, const std::string& more, const std::string& what) {
    const Outcome outcome = run_shell(launch_two(command, more, "other"), work_.path());
    EXPECT_EQ(outcome.out, "2\n2\n") << outcome.err;
    expect_part(outcome.err, fmt::format("the {} of rank 1 is not that of rank 0", what));
    EXPECT_EQ(count_of(outcome.err, "error"), 1) << outcome.err;
    EXPECT_EQ(read(path("out.0")), "");
  };
  expect_different(evaluate({}), "--packing", "setting packing");
  expect_different({"generate", "model", "--ids=1"}, "--seed=7", "flag --seed");
  expect_different({"generate", "model", "--prompts=prompts.jsonl"}, "", "text to continue");
}

}  // namespace
}  // namespace mixtune
