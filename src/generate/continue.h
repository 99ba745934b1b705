// continue_texts: lets a model go on with texts, token by token.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "generate/decoder.h"
#include "generate/sampling.h"

namespace mixtune {

// A text ends with any of these tokens, which is a part of it; after `most_tokens` new ones; or where the decoder has
// no further position.
struct TextEnds {
  std::vector<int32_t> ids;
  int64_t most_tokens = 0;
};

// texts[i] is the text of sequence i of the decoder, which has a part of it that is not all, or nothing yet. Appends to
// each until it ends; one that has ended costs nothing. Calls heard(i) after each token of text i. All ranks call this,
// with texts of their own, or none, and return when those of all have ended.
void continue_texts(Decoder& decoder, std::span<std::vector<int32_t>> texts, const TextEnds& ends,
                    const Sampling& sampling, const std::function<void(size_t)>& heard = {});

}  // namespace mixtune
