#include "metrics/console_sink.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

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

}  // namespace

void ConsoleSink::step(const StepRecord& r) {
  summary_.add(r);
  constexpr double kSmoothing = 0.1;
  smooth_milliseconds_ += (smooth_milliseconds_ == 0 ? 1 : kSmoothing) * (r.milliseconds - smooth_milliseconds_);
  total_steps_ = r.total_steps;
  const double left = static_cast<double>(r.total_steps - r.step) * smooth_milliseconds_ / 1000;
  const bool logged = r.step == 1 || r.step % options_.logging_steps == 0 || r.step == r.total_steps;
  if (!logged && !options_.terminal) return;
  print(fmt::format("{}  {:5.1f}%  loss {:8.4f}  lm {:8.4f}  aux {:6.3f}  grad {:9.3g}  lr {:.3e}  "
                    "{:>9} tok/s  {:>7} ms  ETA {:>7}",
                    progress(r.step, r.total_steps), percent(r), r.loss, r.lm_loss, r.aux_loss, r.grad_norm,
                    r.learning_rate, grouped(r.tokens_per_second), step_time(r.milliseconds), duration_text(left)),
        !logged);
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
  for (const std::string& line : summary_.lines()) print(line, false);
  std::fflush(out_);
}

void ConsoleSink::print(std::string line, bool live) {
  if (live && options_.columns > 1) line.resize(std::min(line.size(), static_cast<size_t>(options_.columns - 1)));
  const std::string text = fmt::format("{}{}{}", live_ ? kClearLine : "", line, live ? "" : "\n");
  std::fwrite(text.data(), 1, text.size(), out_);  // a failure stays in the stream's state; the run goes on
  std::fflush(out_);
  live_ = live;
}

ConsoleSink::Options stdout_options(int64_t logging_steps) {
  winsize size = {};
  const bool terminal = isatty(STDOUT_FILENO) != 0;
  if (terminal) static_cast<void>(ioctl(STDOUT_FILENO, TIOCGWINSZ, &size));
  return {.logging_steps = logging_steps, .terminal = terminal, .columns = size.ws_col};
}

}  // namespace mixtune
