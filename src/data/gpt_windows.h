// GptWindows: the windows that Megatron-Core's GPTDataset cuts from an indexed data set (gpt_dataset.py, and
// build_sample_idx in helpers.cpp): the same tokens in the same order.
//
// The sequences of all epochs stand one after the other, shuffled. Every seq_length tokens a window begins. It has
// seq_length + 1 tokens, those to read and the target of the last, so neighbouring windows share a token. The windows
// are shuffled too. Where fewer than 80% of the last epoch's windows are asked for, its sequences and its windows are
// shuffled by themselves and come last. Both shuffles are numpy's, of one RandomState(seed).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "data/gpt_split.h"

namespace mixtune {

struct GptWindowOptions {
  int64_t seq_length = 0;          // at least 1
  std::optional<int64_t> samples;  // the least number of windows; none: one epoch
  uint32_t seed = 0;
  bool shuffle = true;  // false: sequences and windows in their order, which Megatron does not have
};

// Tokens [begin, begin + count) of a sequence.
struct WindowPart {
  int64_t sequence, begin, count;
  bool operator==(const WindowPart&) const = default;
};

// Takes 4 bytes of memory for each sequence of each epoch and 12 for each window, as Megatron does. Any number of
// threads may ask for windows at once.
class GptWindows {
 public:
  // `lengths` of all sequences, in tokens, outlives this. The windows are cut from the sequences in `range`. Throws
  // UserError (`where`) where these have no token, or where there would be 2^31 or more sequences, over all epochs, or
  // windows.
  GptWindows(std::span<const int32_t> lengths, SequenceRange range, const GptWindowOptions& options,
             std::string_view where);

  int64_t size() const { return static_cast<int64_t>(order_.size()); }  // at least options.samples
  int64_t epochs() const { return epochs_; }

  // Writes the seq_length + 1 tokens of window i, in [0, size()), as parts. None is empty.
  void window(int64_t i, std::vector<WindowPart>& parts) const;

 private:
  // Where a window begins: at a token of sequences_[entry].
  struct Begin {
    int32_t entry, token;
  };

  int64_t count(int64_t tokens, int64_t sequences, std::string_view where);
  int64_t separate_windows(int64_t tokens) const;
  void cut(int64_t windows);

  std::span<const int32_t> lengths_;
  GptWindowOptions options_;
  int64_t epochs_ = 1;
  std::vector<int32_t> sequences_;  // of all epochs, shuffled
  std::vector<Begin> begins_;       // in the order of sequences_
  std::vector<uint32_t> order_;     // an order of begins_
};

}  // namespace mixtune
