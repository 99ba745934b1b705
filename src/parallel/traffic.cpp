#include "parallel/traffic.h"

#include <algorithm>
#include <chrono>

#include "parallel/wrapped_communicator.h"

namespace mixtune {

namespace {

using Clock = std::chrono::steady_clock;

Traffic::Sum& operator+=(Traffic::Sum& total, const Traffic::Sum& sum) {
  total.calls += sum.calls;
  total.bytes += sum.bytes;
  total.seconds += sum.seconds;
  return total;
}

class Inside {
 public:
  Inside(Traffic& traffic, const char* what, int64_t bytes) : traffic_(traffic), what_(what), bytes_(bytes) {}
  ~Inside() {
    const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    traffic_.add(what_, {.calls = 1, .bytes = bytes_, .seconds = seconds});
  }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  Traffic& traffic_;
  const char* what_;
  int64_t bytes_;
  Clock::time_point start_ = Clock::now();
};

}  // namespace

void Traffic::add(const char* what, const Sum& sum) {
  const auto same = [what](const Entry& entry) {
    return std::string_view(entry.what) == what;
  };
  auto entry = std::ranges::find_if(entries_, same);
  if (entry == entries_.end()) entry = entries_.insert(entry, {what, {}});
  entry->sum += sum;
}

Traffic::Sum Traffic::all() const {
  Sum total;
  for (const Entry& entry : entries_) total += entry.sum;
  return total;
}

Traffic::Sum Traffic::of(std::initializer_list<std::string_view> names) const {
  Sum total;
  for (const Entry& entry : entries_)
    if (std::ranges::find(names, entry.what) != names.end()) total += entry.sum;
  return total;
}

void Traffic::clear() {
  for (Entry& entry : entries_) entry.sum = {};
}

std::unique_ptr<Communicator> with_traffic(std::unique_ptr<Communicator> communicator, Traffic& traffic) {
  return wrap_communicator(std::move(communicator),
                           [&traffic](const char* what, int64_t bytes) { return Inside(traffic, what, bytes); });
}

}  // namespace mixtune
