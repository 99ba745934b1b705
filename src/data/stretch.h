// Stretches: a conversation as a chat template renders it, before it is tokenised.
#pragma once

#include <string>
#include <vector>

#include "data/record.h"

namespace mixtune {

struct Stretch {
  enum class Kind {
    kText,     // the template's own: always text
    kContent,  // the turn's: text, unless special tokens spelt in it are asked for
    kSpecial   // the name of a special token, and becomes that token; text, where the tokeniser has none of this name
  };

  struct Part {
    enum Kind {
      kPrompt,  // trained where prompts are
      kAnswer,  // trained
      kPassed   // never trained: BOS, and a turn that is not to be
    };
    Part(Kind of_kind, float of_weight = 1) : kind(of_kind), weight(of_weight) {}  // not explicit: most weigh 1

    Kind kind;
    float weight;
  };

  std::string text;
  Kind kind = Kind::kText;
  Part part = Part::kPrompt;
};

// The part that a turn's content is.
inline Stretch::Part part_of(const Turn& turn) {
  if (!turn.train) return Stretch::Part::kPassed;
  return turn.role == Role::kAssistant ? Stretch::Part(Stretch::Part::kAnswer, turn.weight) : Stretch::Part::kPrompt;
}

// The part that the template's text around a turn is. The mark that ends an answer is a part of the answer instead.
inline Stretch::Part frame_of(const Turn& turn) {
  return turn.role == Role::kAssistant ? Stretch::Part(Stretch::Part::kPrompt) : part_of(turn);
}

using Stretches = std::vector<Stretch>;

// The names of the tokeniser's BOS and EOS, which a template uses.
struct Marks {
  std::string bos, eos;
};

}  // namespace mixtune
