#include "metrics/console_sink.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>
#include <vector>

#include "metrics/format_numbers.h"

namespace mixtune {

namespace {

constexpr const char* kClearLine = "\r\x1b[K";

std::string progress(int64_t step, int64_t total) {
  return fmt::format("step {:>{}}/{}", step, fmt::formatted_size("{}", total), total);
}

// The percentage is rounded down: 100% is for the last step.
double percent(const StepRecord& r) {
  return std::floor(1000.0 * static_cast<double>(r.step) / static_cast<double>(std::max<int64_t>(r.total_steps, 1))) /
         10;
}

// A part of a line. Of those that do not fit, the part that matters least goes first: kNeeded stays.
enum Weight : int { kNeeded, kHealth, kSpeed, kDetail, kAlsoElsewhere };
struct LinePart {
  Weight weight;
  std::string text;
};

// In as many columns as there are; 0: in any.
std::string line_of(std::vector<LinePart> parts, int columns) {
  const auto width = [&] {
    size_t sum = 0;
    for (const LinePart& part : parts) sum += part.text.size() + 2;
    return sum - 2;
  };
  while (columns > 1 && width() > static_cast<size_t>(columns - 1)) {
    const auto least = std::max_element(parts.rbegin(), parts.rend(),
                                        [](const LinePart& a, const LinePart& b) { return a.weight < b.weight; });
    if (least->weight == kNeeded) break;
    parts.erase(std::next(least).base());
  }
  std::string line;
  for (const LinePart& part : parts) line += (line.empty() ? "" : "  ") + part.text;
  return line;
}

std::string memory_text(double gib, double all) {
  return all > 0 ? fmt::format("mem {:.0f}/{:.0f} GiB", gib, all) : fmt::format("mem {:.1f} GiB", gib);
}

}  // namespace

void ConsoleSink::step(const StepRecord& r) {
  summary_.add(r);
  constexpr double kSmoothing = 0.1;
  smooth_milliseconds_ += (smooth_milliseconds_ == 0 ? 1 : kSmoothing) * (r.milliseconds - smooth_milliseconds_);
  total_steps_ = r.total_steps;
  const double left = static_cast<double>(r.total_steps - r.step) * smooth_milliseconds_ / 1000;
  const bool logged = r.step == 1 || r.step % options_.logging_steps == 0 || r.step == r.total_steps;
  if (!logged && !options_.terminal) return;
  std::vector<LinePart> parts = {{kNeeded, progress(r.step, r.total_steps)},
                                 {kAlsoElsewhere, fmt::format("{:5.1f}%", percent(r))},
                                 {kAlsoElsewhere, fmt::format("loss {:8.4f}", r.loss)},
                                 {kNeeded, fmt::format("lm {:8.4f}", r.lm_loss)},
                                 {kDetail, fmt::format("aux {:6.3f}", r.aux_loss)},
                                 {kHealth, fmt::format("grad {:8.3g}", r.grad_norm)},
                                 {kDetail, fmt::format("lr {:.3e}", r.learning_rate)}};
  if (r.expert_imbalance > 0) parts.push_back({kHealth, fmt::format("imbal {:4.2f}", r.expert_imbalance)});
  if (r.drop_rate > 0) parts.push_back({kHealth, fmt::format("drop {:.1f}%", 100 * r.drop_rate)});
  if (r.memory_gib > 0) parts.push_back({kHealth, memory_text(r.memory_gib, options_.scale.memory_gib)});
  if (r.mfu > 0)
    parts.push_back({kSpeed, fmt::format("mfu {:2.0f}%", 100 * r.mfu)});
  else if (r.model_tflops > 0)
    parts.push_back({kSpeed, fmt::format("{:>13}", flops_rate(r.model_tflops))});
  parts.push_back({kSpeed, fmt::format("{:>9} tok/s", grouped(r.tokens_per_second))});
  parts.push_back({kAlsoElsewhere, fmt::format("{:>7} ms", step_time(r.milliseconds))});
  parts.push_back({kSpeed, fmt::format("ETA {:>7}", duration_text(left))});
  print(line_of(std::move(parts), options_.columns), !logged);
}

void ConsoleSink::evaluation(const EvalRecord& r) {
  summary_.add(r);
  print(fmt::format("{}  evaluation{}: lm {:.4f}  perplexity {:.4g}  on {} tokens",
                    total_steps_ > 0 ? progress(r.step, total_steps_) : fmt::format("step {}", r.step),
                    r.name.empty() ? "" : " of " + r.name, r.eval_loss, r.eval_perplexity,
                    grouped(static_cast<double>(r.eval_tokens))),
        false);
}

void ConsoleSink::finish() {
  if (live_) std::fputs(kClearLine, out_);
  live_ = false;
  for (const std::string& line : summary_.lines(options_.scale)) print(line, false);
  std::fflush(out_);
}

void ConsoleSink::print(std::string line, bool live) {
  if (live && options_.columns > 1) line.resize(std::min(line.size(), static_cast<size_t>(options_.columns - 1)));
  const std::string text = fmt::format("{}{}{}", live_ ? kClearLine : "", line, live ? "" : "\n");
  std::fwrite(text.data(), 1, text.size(), out_);  // a failure stays in the stream's state; the run goes on
  std::fflush(out_);
  live_ = live;
}

ConsoleSink::Options stdout_options(int64_t logging_steps, DeviceScale scale) {
  winsize size = {};
  const bool terminal = isatty(STDOUT_FILENO) != 0;
  if (terminal) static_cast<void>(ioctl(STDOUT_FILENO, TIOCGWINSZ, &size));
  return {.logging_steps = logging_steps, .terminal = terminal, .columns = size.ws_col, .scale = std::move(scale)};
}

}  // namespace mixtune
