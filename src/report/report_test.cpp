#include "report/report.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/output_file.h"
#include "base/temp_folder.h"
#include "base/test_xml.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

std::string step_line(int step, const std::string& loss, const std::string& more = "") {
  return fmt::format(
      R"({{"step":{0},"total_steps":100,"loss":{1},"lm_loss":{1},"grad_norm":1.5,"tokens":64,"target_tokens":32,)"
      R"("milliseconds":10.0,"new_number":{0}{2}}})"
      "\n",
      step, loss, more);
}

std::string steps_lines(int count, const std::string& more = "") {
  std::string lines;
  for (int step = 1; step <= count; ++step) lines += step_line(step, fmt::format("{}", 3.0 - 0.01 * step), more);
  return lines;
}

class Report : public testing::Test {
 protected:
  std::string run_of(const std::string& name, const std::string& metrics, const std::string& config = "seed: 1\n") {
    const std::string folder = work_ / name;
    fs::create_directory(folder);
    write_file(folder + "/metrics.jsonl", metrics);
    write_file(folder + "/config.resolved.yaml", config);
    return folder;
  }

  static std::string page_of(const std::vector<std::string>& folders) {
    std::string page = report_page(read_runs(folders));
    const std::string_view kind = "<!DOCTYPE html>\n";
    EXPECT_TRUE(page.starts_with(kind));
    tags_of_xml(page.substr(kind.size()));  // throws where it is not well-formed
    for (const char* none : {"<script", "href", "src=", "url(", "@import", "onload"})
      EXPECT_EQ(page.find(none), page.npos) << none;
    return page;
  }

  static std::string refusal(const std::vector<std::string>& folders) {
    try {
      read_runs(folders);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  }

  static int count(const std::string& text, const std::string& part) {
    int found = 0;
    for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++found;
    return found;
  }

  const TempFolder work_;
};

TEST_F(Report, HasWhatTheFilesHaveAndNothingElse) {
  const std::string folder = run_of("first", steps_lines(5));
  const std::string page = page_of({folder});
  for (const char* part : {"<h1>first</h1>", "step 5 of 100", "steps 1 to 5: 320 tokens", "<h3>Loss</h3>",
                           "<h3>Gradient norm</h3>", "<h3>new_number</h3>", "seed: 1", "prefers-color-scheme: dark"})
    EXPECT_THAT(page, HasSubstr(part));
  for (const char* none :
       {"Learning rate", "Load of experts", "Part of a step", "evaluation", "Environment", "What is left out", "drop"})
    EXPECT_THAT(page, Not(HasSubstr(none)));
  write_file(folder + "/environment.json", R"({"device": "8 x H200", "list": [1]})");
  EXPECT_THAT(page_of({folder}), HasSubstr("8 x H200"));
}

TEST_F(Report, SaysWhatMfuIsOf) {
  const std::string folder = run_of("first", steps_lines(5, R"(,"model_tflops":410.0,"mfu":0.415)"));
  const std::string line = "the model's operations: median 410 TFLOP/s of each device, mfu 41.5%";
  EXPECT_THAT(page_of({folder}), HasSubstr(line + "</li>"));
  write_file(folder + "/environment.json", R"({"mfu is of": "<989> TFLOP/s"})");
  const std::string page = page_of({folder});
  EXPECT_THAT(page, HasSubstr(line + " of &lt;989&gt; TFLOP/s</li>"));
  EXPECT_THAT(page, HasSubstr("<h3>Model FLOPs utilisation, of 1</h3>"));
}

TEST_F(Report, ShowsTheLoadOfEachLayersExperts) {
  const std::string lists = R"(,"layer_expert_tokens":[[6,2,0,0],[1,1,1,1]])";
  const RunRecords records(run_of("first", steps_lines(4, lists)) + "/metrics.jsonl");
  EXPECT_EQ(records.layer_load().steps(), 4);
  EXPECT_EQ(records.layer_load().load(0, 0), 3);
  EXPECT_EQ(records.layer_load().load(0, 1), 1);
  EXPECT_EQ(records.layer_load().load(0, 3), 0);
  EXPECT_EQ(records.layer_load().load(1, 2), 1);
  EXPECT_EQ(records.find("layer_expert_tokens"), nullptr);
  const std::string page = page_of({work_ / "first"});
  EXPECT_THAT(page, HasSubstr("Load of experts by layer"));
  EXPECT_THAT(page, HasSubstr("<title>layer 0, expert 0: 3.00</title>"));
}

TEST_F(Report, LeavesOutLayersThatAreNone) {
  int count = 0;
  for (const char* lists : {R"(,"layer_expert_tokens":[])", R"(,"layer_expert_tokens":[[]])",
                            R"(,"layer_expert_tokens":[[1,-1]])", R"(,"layer_expert_tokens":[[1,2],[1]])",
                            R"(,"layer_expert_tokens":[1,2])", R"(,"layer_expert_tokens":[["a"]])"}) {
    const RunRecords records(run_of(fmt::format("run{}", ++count), steps_lines(2, lists)) + "/metrics.jsonl");
    EXPECT_TRUE(records.layer_load().empty()) << lists;
    EXPECT_EQ(records.steps(), 2);
  }
}

TEST_F(Report, ShowsEvaluationsByName) {
  const std::string page = page_of({run_of("first", steps_lines(3) + R"({"step":3,"eval_chat_loss":2.25})"
                                                                     "\n"
                                                                     R"({"step":3,"eval_loss":2.5})"
                                                                     "\n")});
  EXPECT_THAT(page, HasSubstr("evaluation of chat</span>"));
  EXPECT_THAT(page, HasSubstr("evaluation</span>"));
  EXPECT_THAT(page, HasSubstr("best lm 2.2500 (step 3)"));
}

TEST_F(Report, ShowsWhatRanksHave) {
  const std::string ranks =
      R"(,"rank_exchange_milliseconds":[2.0,4.0],"rank_tokens":[30,34],"expert_tokens":[96,32],"expert_imbalance":1.5)";
  const RunRecords records(run_of("first", steps_lines(4, ranks)) + "/metrics.jsonl");
  ASSERT_EQ(records.shares().size(), 1u);
  EXPECT_EQ(records.shares()[0].series.last(), 30);  // 3 of 10 ms
  const Series* tokens = records.find("rank_tokens");
  ASSERT_NE(tokens, nullptr);
  EXPECT_EQ(tokens->whole().least, 30);
  EXPECT_EQ(tokens->whole().most, 34);
  EXPECT_EQ(records.load().load(0, 0), 1.5);
  EXPECT_EQ(records.load().load(3, 1), 0.5);
  EXPECT_EQ(records.load().share(0), 0.75);
  const std::string page = page_of({work_ / "first"});
  EXPECT_THAT(page, HasSubstr("Load of experts"));
  EXPECT_THAT(page, HasSubstr("75.0%"));
  EXPECT_THAT(page, HasSubstr("all-to-all</span>"));
}

TEST_F(Report, NamesWhatIsNotFiniteAndLeavesAGap) {
  const std::string lines = step_line(1, "2") + step_line(2, "2.5") + step_line(3, "null") + step_line(4, "null") +
                            step_line(5, "2.5") + step_line(6, "2");
  const std::string folder = run_of("first", lines);
  const RunRecords records(folder + "/metrics.jsonl");
  EXPECT_EQ(records.find("lm_loss")->whole().holes, 2);
  const std::string page = page_of({folder});
  EXPECT_THAT(page, HasSubstr("steps 3 to 4: the loss or the gradient norm is not finite"));
  EXPECT_THAT(page, HasSubstr("class=\"hole\""));
  EXPECT_THAT(page, Not(HasSubstr("nan")));
}

TEST_F(Report, WarnsByTheRulesOfTheWatchdog) {
  std::string lines = steps_lines(30);
  lines += step_line(31, "30");
  EXPECT_THAT(page_of({run_of("first", lines)}), HasSubstr("step 31: lm_loss 30 is over"));
}

TEST_F(Report, OfAStepWithoutATargetHasNoLoss) {
  const std::string none = R"({"step":2,"total_steps":3,"loss":0.0,"lm_loss":0.0,"grad_norm":0.0,"tokens":64,)"
                           R"("target_tokens":0,"milliseconds":0.0})"
                           "\n";
  const std::string folder = run_of("first", step_line(1, "2") + none + step_line(3, "2"));
  EXPECT_EQ(RunRecords(folder + "/metrics.jsonl").find("lm_loss")->whole().least, 2);
  EXPECT_THAT(page_of({folder}), HasSubstr("step 2: none of its tokens is a target"));
}

TEST_F(Report, EscapesAllThatIsNotItsOwn) {
  const std::string evil = "<img onerror='x'>&\"";
  const std::string folder = run_of("<b>&",
                                    steps_lines(3, R"(,"<u>number":1)") + R"({"step":3,"eval_<i>_loss":2.5})"
                                                                          "\n",
                                    "model_name_or_path: " + evil + "\xff\x01\n");
  write_file(folder + "/environment.json", R"({"<s>": "<em>"})");
  const std::string other = run_of("other", steps_lines(3), "model_name_or_path: '<q>'\n");
  for (const std::string& page : {page_of({folder}), page_of({folder, other})})
    for (const char* tag : {"<b>", "<u>", "<i>", "<img", "<s>", "<em>", "<q>", "\xff"})
      EXPECT_EQ(page.find(tag), page.npos) << tag;
}

TEST_F(Report, LeavesOutWhatIsNoRecord) {
  const std::string bad =
      "\n{}\n[]\nnull\n{\"step\":-1,\"loss\":1}\n{\"step\":1e300,\"loss\":1}\n"
      "{\"step\":3,\"loss\":1,\"tokens\":99999999999999999999}\n{\"step\":3,\"loss\":\"x\xff\"}\n" +
      std::string(100000, '[') + "\n" + step_line(1, "7") + "{\"step\":4,\"los";
  const std::string folder = run_of("first", steps_lines(3) + bad);
  const RunRecords records(folder + "/metrics.jsonl");
  EXPECT_EQ(records.steps(), 3);
  EXPECT_EQ(records.unread(), 11);
  EXPECT_EQ(records.find("lm_loss")->whole().most, 2.99);
  EXPECT_THAT(page_of({folder}), HasSubstr("not of a later step: 11"));
}

TEST_F(Report, DrawsNumbersOfAnySize) {
  std::string lines;
  int step = 0;
  for (const char* number : {"1e99", "-1e99", "1e-320", "0", "1e308", "5e-324", "1e100"}) {
    lines +=
        step_line(++step, number, fmt::format(",\"a\":{0},\"b_bytes\":[{0},1],\"expert_tokens\":[{0},-1]", number));
    lines += step_line(step += 100000007, number);
  }
  const std::string page = page_of({run_of("first", lines)});
  for (const char* none : {"nan", "inf\"", "inf "}) EXPECT_THAT(page, Not(HasSubstr(none)));
}

TEST_F(Report, BoundsHowManyNamesThereAre) {
  std::string more, lines;
  for (int i = 0; i < 1000; ++i) more += fmt::format(",\"n{}\":1", i);
  lines = step_line(1, "2", more);
  for (int i = 0; i < 1000; ++i) lines += fmt::format("{{\"step\":1,\"eval_{}_loss\":2}}\n", i);
  const RunRecords records(run_of("first", lines) + "/metrics.jsonl");
  EXPECT_EQ(records.numbers().size(), RunRecords::kMostNames);
  EXPECT_EQ(records.evaluations().size(), RunRecords::kMostNames);
  EXPECT_LE(page_of({work_ / "first"}).size(), 1u << 20);
}

TEST_F(Report, IsAsSmallForALongRun) {
  const std::string page = page_of({run_of("first", steps_lines(20000))});
  EXPECT_LE(page.size(), 300000u);
  EXPECT_THAT(page, HasSubstr("means of up to 64 steps"));
}

TEST_F(Report, ComparesRuns) {
  const std::string a = run_of("a", steps_lines(5), "seed: 1\nmax_steps: 5\nlr_groups: {router: 1}\n"),
                    b = run_of("b",
                               steps_lines(8) + R"({"step":8,"eval_loss":2.5})"
                                                "\n",
                               "seed: 2\nmax_steps: 5\nlr_groups: {router: 2}\n");
  const std::string page = page_of({a, b});
  EXPECT_THAT(page, HasSubstr("<h1>a, b</h1>"));
  EXPECT_THAT(page, HasSubstr("2.5 (step 8)"));
  EXPECT_THAT(page, HasSubstr("<tr><td>seed</td><td class=\"value\">1</td><td class=\"value\">2</td></tr>"));
  EXPECT_THAT(page, HasSubstr("{router: 2}"));
  EXPECT_EQ(count(page, "<td>max_steps</td>"), 0);
  EXPECT_THAT(page_of({a, a}), HasSubstr("Differences of configuration</h2>\n<p>none</p>"));
  EXPECT_THAT(page_of({a, a}), HasSubstr(a));  // by their paths, where their names are the same
  write_file(work_ / "b2", "");
  run_of("c", steps_lines(2), "*not: [yaml\n");
  EXPECT_THAT(page_of({a, work_ / "c"}), HasSubstr("<td>seed</td>"));
}

TEST_F(Report, ShowsTwelveRunsAtMost) {
  const std::string a = run_of("a", steps_lines(2));
  EXPECT_THAT(page_of(std::vector<std::string>(12, a)), HasSubstr("line c5 dashed"));
  EXPECT_THAT(refusal(std::vector<std::string>(13, a)), HasSubstr("13 runs are more than one page shows"));
}

TEST_F(Report, IsRefusedWhereNothingCanBeShown) {
  EXPECT_THAT(refusal({work_ / "none"}), HasSubstr("none/metrics.jsonl"));
  EXPECT_THAT(refusal({run_of("empty", "")}), HasSubstr("has no record"));
  EXPECT_THAT(refusal({run_of("other", "text\n{\"a\":1}\n")}), HasSubstr("has no record"));
  const std::string folder = run_of("first", steps_lines(2));
  fs::remove(folder + "/config.resolved.yaml");
  EXPECT_THAT(page_of({folder}), Not(HasSubstr("Configuration")));
  fs::create_directory(folder + "/config.resolved.yaml");
  write_file(folder + "/environment.json", "{");
  const std::string page = page_of({folder});
  EXPECT_THAT(page, HasSubstr("config.resolved.yaml"));
  EXPECT_THAT(page, HasSubstr("environment.json"));
}

TEST_F(Report, IsTheSameEachTime) {
  const std::string folder = run_of("first", steps_lines(30));
  const std::string path = write_report(folder + "/");
  const std::string once = read_small_file(path, 1 << 20, "");
  write_report(folder);
  EXPECT_EQ(read_small_file(path, 1 << 20, ""), once);
  EXPECT_EQ(once, page_of({folder}));
}

}  // namespace
}  // namespace mixtune
