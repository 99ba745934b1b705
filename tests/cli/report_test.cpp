// report.html of a run, and `mixtune report`.
#include <gtest/gtest.h>

#include "base/test_xml.h"
#include "rank_runs.h"

namespace mixtune {
namespace {

class Reports : public RankRuns {
 protected:
  // The page, which is looked at for being whole.
  std::string page(const std::string& name) const {
    const std::string html = read(path(name)), kind = "<!DOCTYPE html>\n";
    EXPECT_TRUE(html.starts_with(kind));
    EXPECT_FALSE(tags_of_xml(html.substr(kind.size())).empty());
    return html;
  }
};

TEST_F(Reports, AreWrittenAtTheEndAndTheSameMadeAnew) {
  done(train("out", {"--max_steps=4", "--per_device_train_batch_size=4", "--eval_steps=2"}));
  const std::string html = page("out/report.html");
  for (const char* part : {"<h1>out</h1>", "all 4 steps", "max_steps: 4", "<h3>Learning rate</h3>", "> evaluation<",
                           "parameters", "began"})
    expect_part(html, part);
  fs::remove(path("out/report.html"));
  const Outcome outcome = done({"report", "out"});
  EXPECT_EQ(outcome.out, "out/report.html\n");
  EXPECT_EQ(read(path("out/report.html")), html);
  done({"report", "out/", "--out=elsewhere.html"});
  EXPECT_EQ(read(path("elsewhere.html")), html);
}

TEST_F(Reports, HaveTheRanksAndExperts) {
  if (on_gpus() && promised_gpus() < 2) GTEST_SKIP() << "needs two GPUs";
  done(train("out",
             {"--max_steps=2", "--per_device_train_batch_size=2", "--nproc=2", "--expert_model_parallel_size=2"}));
  const std::string html = page("out/report.html");
  for (const char* part : {"Load of experts", "all-to-all", "layout"}) expect_part(html, part);
}

TEST_F(Reports, CompareRuns) {
  done(train("a", {"--max_steps=2", "--per_device_train_batch_size=2"}));
  done(train("b", {"--max_steps=3", "--per_device_train_batch_size=2"}));
  const Outcome refused = run({"report", "a", "b"});
  EXPECT_EQ(refused.code, 2);
  expect_part(refused.err, "--out: is needed");
  done({"report", "a", "b", "--out=ab.html"});
  expect_part(page("ab.html"), "<td>max_steps</td>");
  EXPECT_EQ(run({"report", "a", "b", "--out=ab.html"}).code, 2);
  done({"report", "a", "b", "--out=ab.html", "--overwrite"});
}

TEST_F(Reports, AreRefusedInOneLineWhereThereIsNothing) {
  fs::create_directories(path("empty"));
  for (const char* folder : {"none", "empty", "model", "model/config.json"}) {
    const Outcome outcome = run({"report", folder});
    EXPECT_EQ(outcome.code, 2);
    EXPECT_EQ(lines_of(outcome.err).size(), 1u) << outcome.err;
    EXPECT_FALSE(fs::exists(path(folder) / "report.html"));
  }
}

TEST_F(Reports, TakeNoFoldersPlace) {
  done(train("out", {"--max_steps=1"}));
  fs::remove(path("out/report.html"));
  fs::create_directories(path("out/report.html/in-its-way"));
  const Outcome outcome = run({"report", "out"});
  EXPECT_NE(outcome.code, 0);
  EXPECT_EQ(lines_of(outcome.err).size(), 1u) << outcome.err;
}

}  // namespace
}  // namespace mixtune
