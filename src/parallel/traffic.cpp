#include "parallel/traffic.h"

#include <algorithm>
#include <exception>

#include "parallel/wrapped_communicator.h"

namespace mixtune {

namespace {

Traffic::Sum& operator+=(Traffic::Sum& total, const Traffic::Sum& sum) {
  total.calls += sum.calls;
  total.bytes += sum.bytes;
  total.seconds += sum.seconds;
  total.exposed_seconds += sum.exposed_seconds;
  return total;
}

class Timed {
 public:
  Timed(Traffic& traffic, Ctx* ctx, const char* what, int64_t bytes)
      : traffic_(ctx ? &traffic : nullptr), exceptions_(std::uncaught_exceptions()) {
    if (traffic_) traffic_->begin(*ctx, what, bytes);
  }
  // An operation that failed is left as it is: the device may be unable to tell the time any more.
  ~Timed() noexcept(false) {
    if (traffic_ && std::uncaught_exceptions() == exceptions_) traffic_->end();
  }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

 private:
  Traffic* traffic_;
  int exceptions_;
};

}  // namespace

void Traffic::start() {
  for (Entry& entry : entries_) entry.sum = {};
  spans_.clear();
  if (clock_) clock_->reset();
  counting_ = true;
}

void Traffic::forget_ctx() {
  stop();
  spans_.clear();
  clock_.reset();
}

size_t Traffic::entry_of(const char* what) {
  const auto same = [what](const Entry& entry) {
    return std::string_view(entry.what) == what;
  };
  const size_t entry = std::ranges::find_if(entries_, same) - entries_.begin();
  if (entry == entries_.size()) entries_.push_back({what, {}});
  return entry;
}

void Traffic::begin(Ctx& ctx, const char* what, int64_t bytes) {
  inside_ = counting_;
  if (!inside_) return;
  if (!clock_) clock_ = make_stamp_clock(ctx);
  const bool operation = bytes != kWait;
  const size_t entry = entry_of(what);
  if (operation) entries_[entry].sum += {.calls = 1, .bytes = bytes};
  spans_.push_back({entry, clock_->stamp(), 0, operation, !in_lane(ctx)});
}

void Traffic::end() {
  if (inside_) spans_.back().to = clock_->stamp();
  inside_ = false;
}

void Traffic::add_times() {
  for (const Span& span : spans_) {
    if (!clock_->is_past(span.to)) continue;
    const double seconds = clock_->milliseconds(span.from, span.to) / 1e3;
    if (span.operation) entries_[span.entry].sum.seconds += seconds;
    if (span.exposed) entries_[span.entry].sum.exposed_seconds += seconds;
  }
  spans_.clear();
}

Traffic::Sum Traffic::all() {
  add_times();
  Sum total;
  for (const Entry& entry : entries_) total += entry.sum;
  return total;
}

Traffic::Sum Traffic::of(std::initializer_list<std::string_view> names) {
  add_times();
  Sum total;
  for (const Entry& entry : entries_)
    if (std::ranges::find(names, entry.what) != names.end()) total += entry.sum;
  return total;
}

std::unique_ptr<Communicator> with_traffic(std::unique_ptr<Communicator> communicator, Traffic& traffic) {
  return wrap_communicator(std::move(communicator), [&traffic](Ctx* ctx, const char* what, int64_t bytes) {
    return Timed(traffic, ctx, what, bytes);
  });
}

}  // namespace mixtune
