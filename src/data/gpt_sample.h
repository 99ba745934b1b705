// GptSample: a window of Megatron-Core's GPTDataset as a sample: tokens, targets and which of them see each other
// (gpt_dataset.py, _get_ltor_masks_and_position_ids).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "data/gpt_windows.h"
#include "data/indexed_reader.h"

namespace mixtune {

// Megatron's options of these names. Megatron looks for the end-of-document token where mixtune takes the end of a
// sequence: the same where sequences end with that token and have it nowhere else, and right where they do not.
struct GptMasking {
  bool reset_position_ids = false;    // with the next: positions restart in each sequence
  bool reset_attention_mask = false;  // sequences do not see each other, and positions restart: RoPE is relative
  bool eod_mask_loss = false;         // the first token of a sequence is no target of the one before
};

// Throws UserError (`where`) for reset_position_ids alone: tokens that see each other have positions in one order.
void check_masking(const GptMasking& masking, std::string_view where);

// A sample of S = seq_length tokens.
struct GptSample {
  std::vector<int32_t> ids;      // [S]
  std::vector<int32_t> targets;  // [S]: the token after ids[i] in the window, or kIgnoreTarget
  std::vector<int64_t> begins;   // where the window's isolated documents begin, ascending from 0
};

// Makes the sample of a window's parts. Tokens that the data set's mask takes out are no targets. Throws as
// IndexedReader::read does.
void read_sample(const IndexedReader& reader, std::span<const WindowPart> parts, const GptMasking& masking,
                 GptSample& sample);

}  // namespace mixtune
