#include "data/chat_template.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace mixtune {

namespace {

constexpr const char* kJoin = "\n\n";

using Turns = std::vector<Turn>;

void refuse_tools(const Conversation& conversation, const std::string& where) {
  const auto has_tools = [](const Turn& turn) {
    return turn.role == Role::kTool || !turn.tool_calls.empty();
  };
  if (!conversation.tools.empty() || std::ranges::any_of(conversation.turns, has_tools))
    throw UserError(where, "the chat template of Mixtral-Instruct has no place for tools, their calls and answers",
                    "remove the record, or write them as text");
}

void check(const Turns& conversation, Role last, const std::string& where) {
  if (conversation.empty()) throw UserError(where, "a conversation without a turn", "remove the record");
  for (size_t i = 0; i < conversation.size(); ++i) {
    const Role role = conversation[i].role;
    if (role == Role::kAssistant && conversation[i].text.empty())
      throw UserError(where, fmt::format("turn {}: an empty answer", i + 1), "remove the turn or the record");
    if (role == Role::kSystem && i > 0 && conversation[i - 1].role != Role::kSystem)
      throw UserError(where, fmt::format("turn {}: a system turn after the conversation began", i + 1),
                      "put system text first");
  }
  if (conversation.back().role != last)
    throw UserError(where, fmt::format("the last turn is not the {}'s", last == Role::kUser ? "user" : "assistant"),
                    "remove what follows the last turn of that role");
  if (conversation.size() == 1 && last == Role::kAssistant)
    throw UserError(where, "an answer without a turn before it", "add the user's turn (it may be empty)");
}

// Turns of one role in a row become one (answers where they are alike trained; prompts are trained where all of them
// are), and empty texts leave no trace.
Turns joined(const Turns& conversation) {
  Turns turns;
  for (const Turn& turn : conversation) {
    const bool joins = !turns.empty() && turns.back().role == turn.role &&
                       (turn.role != Role::kAssistant || turns.back().train == turn.train);
    if (!joins) turns.push_back({.role = turn.role, .train = turn.train});
    turns.back().train = turns.back().train && turn.train;
    std::string& whole = turns.back().text;
    if (!whole.empty() && !turn.text.empty()) whole += kJoin;
    whole += turn.text;
  }
  return turns;
}

// User and assistant in alternation, the user first, the system's text put before the user's.
Turns normalised(const Turns& conversation) {
  Turns turns = joined(conversation);
  std::string system;
  if (turns.front().role == Role::kSystem) {
    system = std::move(turns.front().text);
    turns.erase(turns.begin());
  }
  if (turns.front().role != Role::kUser) turns.insert(turns.begin(), Turn{.role = Role::kUser});
  if (!system.empty()) turns.front().text = system + kJoin + turns.front().text;
  return turns;
}

TokenSequence encode(const Tokenizer& tokenizer, const Turns& conversation, bool train_on_prompt) {
  TokenSequence document;
  document.append({tokenizer.bos()}, false);
  for (const Turn& turn : normalised(conversation)) {
    if (turn.role == Role::kAssistant) {
      document.append(tokenizer.encode(turn.text), turn.train);
      document.append({tokenizer.eos()}, turn.train);
    } else {
      document.append(tokenizer.encode(fmt::format("[INST] {} [/INST]", turn.text)), train_on_prompt && turn.train);
    }
  }
  return document;
}

}  // namespace

TokenSequence encode_conversation(const TextEncoder& encoder, const Conversation& conversation,
                                  const std::string& where) {
  refuse_tools(conversation, where);
  check(conversation.turns, Role::kAssistant, where);
  return encode(*encoder.tokenizer, conversation.turns, encoder.train_on_prompt);
}

std::vector<int32_t> encode_prompt(const TextEncoder& encoder, const Conversation& conversation,
                                   const std::string& where) {
  refuse_tools(conversation, where);
  check(conversation.turns, Role::kUser, where);
  return encode(*encoder.tokenizer, conversation.turns, false).ids;
}

}  // namespace mixtune
