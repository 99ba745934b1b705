// WindowData: indexed data that windows are cut from, and the parts of it for training and validation.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "config/config.h"
#include "data/data_files.h"
#include "data/gpt_sample.h"
#include "data/gpt_split.h"
#include "data/indexed_reader.h"

namespace mixtune {

// Takes 4 bytes of memory for each sequence.
class WindowData {
 public:
  // Throws as IndexedReader does, and UserError where there is no sequence, or where tokens have weights.
  WindowData(const std::string& prefix, int64_t vocab_size);

  const std::string& name() const { return name_; }
  const IndexedReader& reader() const { return reader_; }
  std::span<const int32_t> lengths() const { return lengths_; }
  // The digest of the lengths of all sequences, and of tokens all over the data.
  uint64_t digest() const { return digest_; }

 private:
  std::string name_;
  IndexedReader reader_;
  std::vector<int32_t> lengths_;
  uint64_t digest_ = 0;
};

// The sequences of one data set of a blend.
struct WindowSet {
  std::shared_ptr<const WindowData> data;
  SequenceRange range;
  double weight = 0;            // all sets of a blend have one, or none: 0
  std::string evaluation = {};  // the validation set that it is of, by its name

  int64_t tokens() const;
};

struct WindowSets {
  std::vector<WindowSet> train, validation;  // sets of weight 0 in the split are left out
  uint64_t digest() const;
};

// Opens the sets of `train` and `validation`, whose paths name indexed data: each path is a set of its own. Splits
// `train` as config says, and logs how in a line for each; also logs what of a window is isolated. Throws UserError for
// what is no indexed data, for several paths with one weight, and for a part that has a weight and no token.
WindowSets open_windows(std::span<const Dataset> train, std::span<const ValidationSet> validation, const Config& config,
                        int64_t vocab_size);

// The masking by config's keys; reset_attention_mask defaults to reset_position_ids. Throws as check_masking.
GptMasking window_masking(const Config& config);

}  // namespace mixtune
