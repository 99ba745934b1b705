// A conversation as a chat template renders it, before it is tokenised.
#pragma once

#include <string>
#include <vector>

#include "data/record.h"

namespace mixtune {

struct Stretch {
  enum class Kind {
    kText,     // the template's own: always text
    kContent,  // what a turn says: text, unless special tokens spelt in it are asked for
    kSpecial   // the name of a special token, and becomes that token; text, where the tokeniser has none of this name
  };

  enum class Part {
    kPrompt,  // trained where prompts are
    kAnswer,  // trained
    kPassed   // never trained: BOS, and an answer that is not to be
  };

  std::string text;
  Kind kind = Kind::kText;
  Part part = Part::kPrompt;
};

inline Stretch::Part part_of(const Turn& turn) {
  if (turn.role != Role::kAssistant) return Stretch::Part::kPrompt;
  return turn.train ? Stretch::Part::kAnswer : Stretch::Part::kPassed;
}

using Stretches = std::vector<Stretch>;

// What a template takes from the tokeniser: the names of its BOS and EOS.
struct Marks {
  std::string bos, eos;
};

}  // namespace mixtune
