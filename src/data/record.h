// Record: the content of a record of a data file, before and after it is tokenised.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "data/label.h"

namespace mixtune {

enum class Role { kSystem, kUser, kAssistant, kTool };

// A call of a function that an assistant's turn makes.
struct ToolCall {
  std::string id;  // may be empty
  std::string name;
  std::string arguments;  // the text of a JSON object, keys in the record's order
};

struct Turn {
  Role role = Role::kSystem;
  std::string text;
  bool train = true;  // whether an assistant's turn is trained; other roles' turns need train_on_prompt too
  float weight = 1;   // of an assistant's tokens that are trained
  std::vector<ToolCall> tool_calls;  // an assistant's
  std::string tool_call_id, name;    // of a tool's turn: the call that it answers, the function's name; may be empty
};

struct Conversation {
  std::vector<Turn> turns;
  std::vector<std::string> tools;  // the functions on offer: each the text of a JSON object, keys in the record's order
};

// A tokenised document: labels[i] is ids[i] where that token is trained and kIgnoreTarget where it is not. Not
// shifted; the label of the first token is never a target.
struct TokenSequence {
  std::vector<int32_t> ids;
  std::vector<int32_t> labels;
  std::vector<float> weights;  // data/weights.h, of the trained tokens; empty: all are 1
  bool continues = false;      // it is a further document of the record before

  // Appends tokens; weight 0: not trained.
  void append(std::span<const int32_t> tokens, float weight) {
    if (weights.empty() && weight != 0 && weight != 1) weights.resize(ids.size(), 1);
    ids.insert(ids.end(), tokens.begin(), tokens.end());
    if (weight != 0) labels.insert(labels.end(), tokens.begin(), tokens.end());
    labels.resize(ids.size(), kIgnoreTarget);
    if (!weights.empty() || (weight != 0 && weight != 1)) weights.resize(ids.size(), weight);
  }
};

// The documents of a record: one, unless it was packed elsewhere; all but the first continue it.
using TokenizedRecord = std::vector<TokenSequence>;

// A text in two parts, without a template: `completion` is trained.
struct PromptCompletion {
  std::string prompt, completion;
};

// The formats messages, instruction and prompt_completion of turns; prompt_completion of strings; text; tokenized.
using Record = std::variant<Conversation, PromptCompletion, std::string, TokenizedRecord>;

}  // namespace mixtune
