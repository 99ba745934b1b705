#include "data/gpt_windows.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "data/numpy_rules.h"

namespace mixtune {

namespace {

constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
constexpr double kSeparateBelow = 0.80;  // share of the last epoch's windows

int64_t windows_in(int64_t tokens, int64_t seq_length) {
  return std::max<int64_t>(0, (tokens - 1) / seq_length);
}

// Shuffles the last `separate` of the values, and those before them, each by themselves.
template <class Value>
void shuffle_parts(NumpyRandomState& random, std::vector<Value>& values, int64_t separate) {
  const auto common = values.size() - static_cast<size_t>(separate);
  random.shuffle(std::span(values).first(common));
  random.shuffle(std::span(values).subspan(common));
}

}  // namespace

GptWindows::GptWindows(std::span<const int32_t> lengths, SequenceRange range, const GptWindowOptions& options,
                       std::string_view where)
    : lengths_(lengths), options_(options) {
  MT_CHECK(range.begin >= 0 && range.begin <= range.end && range.end <= static_cast<int64_t>(lengths.size()));
  MT_CHECK(options.seq_length >= 1 && options.seq_length < kMax && options.samples.value_or(0) >= 0);
  const auto own = lengths.subspan(static_cast<size_t>(range.begin), static_cast<size_t>(range.size()));
  const int64_t tokens = std::accumulate(own.begin(), own.end(), int64_t{0});
  const int64_t windows = count(tokens, range.size(), where), separate = separate_windows(tokens);

  NumpyRandomState random(options.seed);
  sequences_.resize(static_cast<size_t>(epochs_ * range.size()));
  for (size_t i = 0; i < sequences_.size(); ++i)
    sequences_[i] = static_cast<int32_t>(range.begin + static_cast<int64_t>(i) % range.size());
  if (options.shuffle) shuffle_parts(random, sequences_, separate > 0 ? range.size() : 0);
  cut(windows);
  order_.resize(static_cast<size_t>(windows));
  std::iota(order_.begin(), order_.end(), 0u);
  if (options.shuffle) shuffle_parts(random, order_, separate);
}

// Sets epochs_. Returns how many windows these have.
int64_t GptWindows::count(int64_t tokens, int64_t sequences, std::string_view where) {
  if (tokens == 0)
    throw UserError(where, fmt::format("{} sequences without a token", sequences), "give it a larger split");
  const auto check_few = [&](bool few, std::string_view what) {
    if (!few) throw UserError(where, fmt::format("2^31 {} or more", what), "train on fewer samples at a time");
  };
  const int64_t samples = options_.samples.value_or(0);
  check_few(samples <= kMax, "windows");
  if (options_.samples) epochs_ = std::max<int64_t>(1, (samples * options_.seq_length + 1 + tokens - 1) / tokens);
  check_few(epochs_ <= kMax / sequences, "sequences in all epochs");
  const int64_t windows = windows_in(epochs_ * tokens, options_.seq_length);
  check_few(windows <= kMax, "windows");
  return windows;
}

// How many windows at the end are shuffled by themselves; 0: none.
int64_t GptWindows::separate_windows(int64_t tokens) const {
  if (epochs_ == 1) return 0;
  const int64_t before = windows_in((epochs_ - 1) * tokens, options_.seq_length);
  const int64_t asked = *options_.samples - before;
  const auto threshold =
      static_cast<int64_t>(kSeparateBelow * static_cast<double>(windows_in(tokens, options_.seq_length)));
  return asked < threshold ? windows_in(epochs_ * tokens, options_.seq_length) - before : 0;
}

void GptWindows::cut(int64_t windows) {
  begins_.resize(static_cast<size_t>(windows));
  int64_t entry = 0, token = 0;
  for (Begin& begin : begins_) {
    begin = {static_cast<int32_t>(entry), static_cast<int32_t>(token)};
    int64_t end = token + options_.seq_length + 1;  // in the sequence of `entry`
    for (; end > lengths_[sequences_[entry]]; ++entry) end -= lengths_[sequences_[entry]];
    token = end - 1;  // the next window begins at the last token of this one
  }
}

void GptWindows::window(int64_t i, std::vector<WindowPart>& parts) const {
  MT_CHECK(i >= 0 && i < size());
  parts.clear();
  auto [entry, token] = begins_[order_[static_cast<size_t>(i)]];
  for (int64_t left = options_.seq_length + 1; left > 0; ++entry, token = 0) {
    const int64_t sequence = sequences_[entry], count = std::min<int64_t>(left, lengths_[sequence] - token);
    if (count > 0) parts.push_back({sequence, token, count});
    left -= count;
  }
}

}  // namespace mixtune
