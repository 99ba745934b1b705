#include "metrics/console_sink.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>

#include "base/temp_folder.h"
#include "metrics/testing.h"

namespace mixtune {
namespace {

// What a console prints for `use`.
template <class Use>
std::string printed(ConsoleSink::Options options, Use use) {
  const TempFolder folder;
  const std::string path = folder / "console";
  std::FILE* out = std::fopen(path.c_str(), "w");
  ConsoleSink sink(out, options);
  use(sink);
  std::fclose(out);
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(ConsoleSink, LineOfAStep) {
  const std::string line = printed({}, [](ConsoleSink& sink) { sink.step(record(12)); });
  EXPECT_EQ(line,
            "step  12/500    2.4%  loss   3.4567  lm   3.4000  aux  2.835  grad     1.25  lr 4.900e-05  imbal 1.50"
            "  mem 1.8 GiB  mfu 41%     12,346 tok/s      100 ms  ETA    0:49\n");
}

TEST(ConsoleSink, WithoutAPeakALineHasTheRate) {
  const auto line = [](double tflops) {
    return printed({}, [=](ConsoleSink& sink) {
      StepRecord r = record(12);
      r.model_tflops = tflops;
      r.mfu = 0;
      sink.step(r);
    });
  };
  EXPECT_NE(line(405.5).find("  mem 1.8 GiB    406 TFLOP/s     12,346 tok/s"), std::string::npos) << line(405.5);
  EXPECT_NE(line(0.0931).find("  mem 1.8 GiB     93 GFLOP/s     12,346 tok/s"), std::string::npos) << line(0.0931);
  EXPECT_EQ(line(0).find("FLOP/s"), std::string::npos) << line(0);
}

// What matters least goes first.
TEST(ConsoleSink, LineFitsTheTerminal) {
  const auto in_columns = [](int columns) {
    return printed({.terminal = true, .columns = columns, .scale = {.memory_gib = 80}}, [](ConsoleSink& sink) {
      StepRecord r = record(12);
      r.memory_gib = 61.4;
      sink.step(r);
    });
  };
  EXPECT_EQ(in_columns(150),
            "step  12/500    2.4%  lm   3.4000  aux  2.835  grad     1.25  lr 4.900e-05  imbal 1.50  mem 61/80 GiB"
            "  mfu 41%     12,346 tok/s  ETA    0:49\n");
  EXPECT_EQ(in_columns(110),
            "step  12/500  lm   3.4000  grad     1.25  imbal 1.50  mem 61/80 GiB  mfu 41%     12,346 tok/s"
            "  ETA    0:49\n");
  EXPECT_EQ(in_columns(80), "step  12/500  lm   3.4000  grad     1.25  imbal 1.50  mem 61/80 GiB  mfu 41%\n");
  EXPECT_EQ(in_columns(10), "step  12/500  lm   3.4000\n");
}

TEST(ConsoleSink, SaysWhatIsDropped) {
  const std::string line = printed({}, [](ConsoleSink& sink) {
    StepRecord r = record(12);
    r.drop_rate = 0.0034;
    sink.step(r);
  });
  EXPECT_NE(line.find("  imbal 1.50  drop 0.3%  mem 1.8 GiB"), std::string::npos) << line;
}

TEST(ConsoleSink, ADeviceWithoutASizeAndAStepWithoutRoutersSayNoMore) {
  const std::string line = printed({}, [](ConsoleSink& sink) {
    StepRecord r = record(1);
    r.expert_imbalance = r.memory_gib = 0;
    sink.step(r);
  });
  EXPECT_EQ(line.find("imbal"), std::string::npos) << line;
  EXPECT_EQ(line.find("mem"), std::string::npos) << line;
}

TEST(ConsoleSink, LinesAlign) {
  const std::string text = printed({}, [](ConsoleSink& sink) {
    StepRecord r = record(1);
    sink.step(r);
    r = record(500);
    r.tokens_per_second = 1234567;
    r.milliseconds = 12345;
    r.grad_norm = 1.23e-7;
    sink.step(r);
  });
  const size_t first = text.find('\n');
  EXPECT_EQ(text.size(), 2 * (first + 1));
  EXPECT_NE(text.find("100.0%"), std::string::npos);
  EXPECT_NE(text.find("1,234,567 tok/s"), std::string::npos);
}

TEST(ConsoleSink, LoggingStepsThinALogButKeepFirstAndLast) {
  const std::string text = printed({.logging_steps = 200}, [](ConsoleSink& sink) {
    for (int64_t step = 1; step <= 500; ++step) sink.step(record(step));
  });
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4);
  for (const char* step : {"step   1/500", "step 200/500", "step 400/500", "step 500/500"})
    EXPECT_NE(text.find(step), std::string::npos) << step;
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
}

TEST(ConsoleSink, TerminalHasALiveLineThatIsReplaced) {
  const ConsoleSink::Options options = {.logging_steps = 3,
                                        .terminal = true,
                                        .columns = 20,
                                        .scale = {.memory_gib = 80, .peak = "989 TFLOP/s, bf16 dense, H200"}};
  const std::string text = printed(options, [](ConsoleSink& sink) {
    for (int64_t step = 1; step <= 4; ++step) sink.step(record(step));
    sink.evaluation({.step = 4, .eval_loss = 1, .eval_perplexity = 2.718, .eval_tokens = 12345});
    sink.step(record(5));
    sink.finish();
  });
  const std::string live = "step   2/500  lm   3.4000";  // cut to the terminal's width, less one
  EXPECT_NE(text.find("\n" + live.substr(0, 19) + "\r\x1b[Kstep   3/500"), std::string::npos);
  EXPECT_NE(text.find("\r\x1b[Kstep   4/500  evaluation: lm 1.0000  perplexity 2.718  on 12,345 tokens\n"),
            std::string::npos);
  EXPECT_TRUE(
      text.ends_with("\r\x1b[Ksteps 1 to 5: 10,240 tokens in 0:01, 20,480 tok/s; median step 100 ms\n"
                     "the model's operations: median 406 TFLOP/s of each device, mfu 41.0% of 989 TFLOP/s, bf16 dense, "
                     "H200\n"
                     "most memory in use: 1.8 of 80 GiB\n"
                     "expert imbalance (most / mean, of the layer where it is largest): median 1.50, most 1.50\n"
                     "evaluations: best lm 1.0000 (step 4), last lm 1.0000 (step 4)\n"));
}

TEST(ConsoleSink, SetsByName) {
  const std::string text = printed({}, [](ConsoleSink& sink) {
    sink.step(record(1));
    for (const char* name : {"chat", "code"})
      sink.evaluation({.name = name, .step = 1, .eval_loss = 1, .eval_perplexity = 2.718, .eval_tokens = 10});
    sink.finish();
  });
  EXPECT_NE(text.find("step   1/500  evaluation of chat: lm 1.0000  perplexity 2.718  on 10 tokens\n"
                      "step   1/500  evaluation of code: lm 1.0000"),
            std::string::npos)
      << text;
}

TEST(ConsoleSink, OddNumbersDoNotBreakTheLine) {
  const std::string text = printed({}, [](ConsoleSink& sink) {
    StepRecord r = record(1);
    r.loss = r.grad_norm = r.tokens_per_second = r.milliseconds = std::numeric_limits<double>::quiet_NaN();
    sink.step(r);
    r = record(2);
    r.total_steps = 100'000'000;
    r.milliseconds = 3.6e6;
    sink.step(r);
  });
  EXPECT_NE(text.find("nan"), std::string::npos);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
}

TEST(ConsoleSink, EtaOfLongRuns) {
  const auto eta = [](double milliseconds) {
    return printed({}, [=](ConsoleSink& sink) {
      StepRecord r = record(400);
      r.milliseconds = milliseconds;
      sink.step(r);
    });
  };
  EXPECT_NE(eta(37'230).find("ETA 1:02:03\n"), std::string::npos);
  EXPECT_NE(eta(1'838'400).find("ETA 2d 03:04\n"), std::string::npos);
}

}  // namespace
}  // namespace mixtune
