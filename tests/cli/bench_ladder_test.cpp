// mixtune bench ladder.
#include <gmock/gmock.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/json_value.h"
#include "base/test_xml.h"
#include "program.h"

namespace mixtune {
namespace {

using testing::ElementsAre;

class BenchLadder : public testing::Test {
 protected:
  void SetUp() override { make_model(path("model")); }

  std::filesystem::path path(const std::string& name) const { return work_.path() / name; }

  Outcome run(const std::vector<std::string>& more, int rounds = 1) const {
    std::vector<std::string> args = {"bench",
                                     "ladder",
                                     "--model-config=model/config.json",
                                     "--layers=1",
                                     "--tokens=256",
                                     "--sequence-length=128",
                                     "--settle=0",
                                     "--steps=2",
                                     "--rounds=" + std::to_string(rounds),
                                     "--device=cpu",
                                     "--json=ladder.json"};
    args.insert(args.end(), more.begin(), more.end());
    return run_mixtune(args, work_.path());
  }

  // Expects exit code 2, one line that says why, and nothing written.
  void expect_refused(const std::vector<std::string>& more, const std::string& fragment) const {
    const auto before = snapshot(work_.path());
    const Outcome outcome = run(more);
    EXPECT_EQ(outcome.code, 2) << fragment;
    EXPECT_TRUE(outcome.err.starts_with("mixtune: error: ")) << outcome.err;
    EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1) << outcome.err;
    expect_part(outcome.err, fragment);
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(snapshot(work_.path()), before);
  }

  nlohmann::json json() const { return nlohmann::json::parse(read(path("ladder.json"))); }

  static std::vector<std::string> names_of(const nlohmann::json& ladder) {
    std::vector<std::string> names;
    for (const auto& row : ladder["rows"]) names.push_back(row["name"]);
    return names;
  }

  TempFolder work_;
};

TEST_F(BenchLadder, HasEveryRung) {
  const Outcome outcome = run({"--svg=ladder.svg"}, 2);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto ladder = json();
  EXPECT_THAT(names_of(ladder), ElementsAre("loop, fp32", "grouped, fp32", "grouped, fp8", "grouped, mxfp8"));
  EXPECT_EQ(ladder["workload"]["device"], "CPU");
  EXPECT_EQ(ladder["workload"]["document_tokens"], 128);
  EXPECT_EQ(ladder["workload"]["model"]["num_hidden_layers"], 1);
  EXPECT_EQ(ladder["rows"][0]["speed_up"], 1);
  for (const auto& row : ladder["rows"]) {
    expect_part(outcome.out, row["name"]);
    ASSERT_EQ(row["rounds_milliseconds"].size(), 2u);
    EXPECT_EQ(row["milliseconds"], std::max(row["rounds_milliseconds"][0], row["rounds_milliseconds"][1]));
    EXPECT_NEAR(row["tokens_per_second"].get<double>() * row["milliseconds"].get<double>(), 256e3, 1);
    EXPECT_GT(row["model_tflops"], 0);
    EXPECT_GT(row["peak_bytes"], 0);
    EXPECT_NEAR(row["loss"].get<double>(), ladder["rows"][0]["loss"].get<double>(), 0.01);  // the same work
  }
  EXPECT_EQ(ladder["rows"][1]["loss"], ladder["rows"][0]["loss"]);  // a loop gives the same numbers
  EXPECT_NE(ladder["rows"][2]["loss"], ladder["rows"][0]["loss"]);
  const std::vector<std::string> tags = tags_of_xml(read(path("ladder.svg")));
  EXPECT_EQ(std::ranges::count_if(tags, [](const std::string& tag) { return tag.find("class=\"bar\"") != tag.npos; }),
            4);
}

TEST_F(BenchLadder, SkipsARungThatIsRefused) {
  const Outcome outcome = run({"--precision=bf16", "--svg=ladder.svg"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  expect_part(outcome.out, "  loop, bf16      skipped: --precision: bf16 needs a GPU, and the device is the CPU");
  const auto rows = json()["rows"];
  ASSERT_EQ(rows.size(), 4u);
  for (const int skipped : {0, 1}) {
    expect_part(rows[skipped]["skipped"], "bf16 needs a GPU");
    EXPECT_FALSE(rows[skipped].contains("milliseconds"));
  }
  EXPECT_EQ(rows[2]["speed_up"], 1);
  EXPECT_FALSE(rows[2].contains("skipped"));
  const std::vector<std::string> tags = tags_of_xml(read(path("ladder.svg")));
  EXPECT_EQ(std::ranges::count_if(tags, [](const std::string& tag) { return tag.find("class=\"bar\"") != tag.npos; }),
            2);
}

// Ranks go on from one rung's instance to the next with the same connections.
TEST_F(BenchLadder, OverRanks) {
  const Outcome outcome = run({"--nproc=2", "--expert_model_parallel_size=2"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  expect_part(outcome.out, "1 layers, each of 2 ranks; 1 rounds by turns");
  const auto ladder = json();
  EXPECT_EQ(ladder["workload"]["ranks"], 2);
  EXPECT_EQ(ladder["rows"].size(), 4u);
  for (const auto& row : ladder["rows"]) EXPECT_GT(row["speed_up"], 0) << row;
}

// Rows that a ladder wrote are read as a peer's where they have versions.
TEST_F(BenchLadder, AddsPeers) {
  ASSERT_EQ(run({}).code, 0);
  nlohmann::json peers = json();
  std::filesystem::remove(path("ladder.json"));
  peers["rows"] = {{{"name", "transformers eager"}, {"versions", "transformers 5.17.0"}, {"milliseconds", 1e6}},
                   {{"name", "grouped_mm"}, {"versions", "torch 2.11.0"}, {"skipped", "OutOfMemoryError"}}};
  write(path("peers.json"), peers.dump());
  const Outcome outcome = run({"--peers=peers.json", "--svg=ladder.svg"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  for (const char* part : {"transformers eager (peer)", "grouped_mm (peer)", "skipped: OutOfMemoryError",
                           "  transformers eager: transformers 5.17.0\n"})
    expect_part(outcome.out, part);
  const auto rows = json()["rows"];
  ASSERT_EQ(rows.size(), 6u);
  EXPECT_EQ(rows[3]["peer"], false);
  EXPECT_EQ(rows[4]["peer"], true);
  EXPECT_DOUBLE_EQ(rows[4]["tokens_per_second"].get<double>(), 0.256);
  const std::string svg = read(path("ladder.svg"));
  const std::vector<std::string> tags = tags_of_xml(svg);
  EXPECT_EQ(std::ranges::count_if(tags, [](const std::string& tag) { return tag.find("class=\"bar") != tag.npos; }), 5);
  expect_part(svg, "class=\"bar peer\"");
}

// A rung that is out of memory is skipped; here all are.
TEST_F(BenchLadder, AModelThatDoesNotFitIsRefusedWithAdvice) {
  nlohmann::json config = nlohmann::json::parse(read(path("model/config.json")));
  config["intermediate_size"] = 1 << 24;
  config["num_local_experts"] = 1024;
  write(path("model/config.json"), config.dump());
  const std::string advice = "; use a smaller batch, shorter rows or a smaller model\n";
  expect_refused({}, advice);
  expect_refused({"--nproc=2"}, advice);
}

TEST_F(BenchLadder, WhatCannotBeMeasured) {
  write(path("bad.json"), R"({"workload": {"device": "CPU", "ranks": 1, "tokens": 512}, "rows": []})");
  write(path("broken.json"), "{");
  expect_refused({"--gradient_dtype=bf16"}, "--gradient_dtype: is for precision: bf16");  // every rung
  expect_refused({"--precision=fp8"}, "--precision: is that of the first two rungs");
  expect_refused({"--peers=bad.json"}, "bad.json: workload.tokens: is 512, and here it is 256");
  expect_refused({"--peers=broken.json"}, "broken.json: ");
  expect_refused({"--peers=none.json"}, "none.json: ");
  expect_refused({"--peers=model"}, "model: ");
  expect_refused({"--nproc=2", "--peers=broken.json"}, "broken.json: ");
  expect_refused({"--svg=model/config.json"}, "exists");
  expect_refused({"--svg=ladder.json"}, "--svg: is the file of --json too");
  expect_refused({"--experts_implementation=loop"}, "--experts_implementation");
  expect_refused({"--mode=forward"}, "--mode");
  EXPECT_EQ(run({}, 0).code, 2);
}

}  // namespace
}  // namespace mixtune
