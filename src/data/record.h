// What a line of a data file says, before and after it is tokenised.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "data/batch.h"

namespace mixtune {

enum class Role { kSystem, kUser, kAssistant };

struct Turn {
  Role role;
  std::string text;
};

using Conversation = std::vector<Turn>;

// A tokenised document: labels[i] is ids[i] where that token is trained and kIgnoreTarget where it is not. Not
// shifted; the label of the first token is never a target.
struct TokenSequence {
  std::vector<int32_t> ids;
  std::vector<int32_t> labels;
  bool continues = false;  // a further piece of the record before

  void append(const std::vector<int32_t>& tokens, bool train) {
    ids.insert(ids.end(), tokens.begin(), tokens.end());
    if (train) labels.insert(labels.end(), tokens.begin(), tokens.end());
    labels.resize(ids.size(), kIgnoreTarget);
  }
};

// The formats messages and instruction; text; tokenized.
using Record = std::variant<Conversation, std::string, TokenSequence>;

}  // namespace mixtune
