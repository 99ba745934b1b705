#include "data/formats.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "base/error.h"
#include "config/keys.h"
#include "data/closed_keys.h"
#include "data/fields.h"
#include "data/tokenized_record.h"
#include "data/tools.h"
#include "data/turns.h"

namespace mixtune {

namespace {

using nlohmann::ordered_json;

constexpr std::array<std::string_view, 3> kTurnLists = {"messages", "conversations", "conversation"};

constexpr std::array<std::string_view, 7> kMessagesKeys = {"messages",      "conversations", "conversation", "system",
                                                           "system_prompt", "tools",         "functions"};
constexpr std::array<std::string_view, 8> kInstructionKeys = {"instruction", "input",         "output", "history",
                                                              "system",      "system_prompt", "tools",  "functions"};
constexpr std::array<std::string_view, 6> kTurnPairKeys = {"prompt",        "completion", "system",
                                                           "system_prompt", "tools",      "functions"};
constexpr std::array<std::string_view, 2> kTextPairKeys = {"prompt", "completion"};
constexpr std::array<std::string_view, 1> kTextKeys = {"text"};

constexpr std::string_view kNoPlace = "has no place in text without a chat template";
constexpr std::string_view kUseMessages = "write prompt and completion as lists of turns, or use format messages";
constexpr std::array kTextPairRefused = {
    RefusedKey{"system", kNoPlace, kUseMessages}, RefusedKey{"system_prompt", kNoPlace, kUseMessages},
    RefusedKey{"tools", kNoPlace, kUseMessages}, RefusedKey{"functions", kNoPlace, kUseMessages},
    RefusedKey{"history", kNoPlace, kUseMessages}};
constexpr std::array kHistoryRefused = {
    RefusedKey{"history", "is read of format instruction alone", "write earlier turns into the list of turns"}};

constexpr const char* kFormats =
    "a record has messages (or conversations), instruction or input with output, prompt with completion, text, or "
    "input_ids";

// The text of the column, under either of its names.
std::string system_text(const Fields& record, UnreadKeys& unread) {
  const bool both = record.has("system") && record.has("system_prompt");
  if (!record.has("system") && !record.has("system_prompt")) return "";
  const std::string text = parse_content(record, record.has("system") ? "system" : "system_prompt", unread);
  if (both && parse_content(record, "system_prompt", unread) != text)
    record.place().fail("'system' and 'system_prompt' differ", "remove one");
  return text;
}

Conversation with_columns(std::vector<Turn> turns, const Fields& record, UnreadKeys& unread) {
  std::string system = system_text(record, unread);
  const bool has_turn = !turns.empty() && turns[0].role == Role::kSystem;
  if (has_turn && !system.empty() && turns[0].text != system)
    record.place().fail("the system column and the system turn differ", "remove one");
  if (!has_turn && !system.empty()) turns.insert(turns.begin(), Turn{.role = Role::kSystem, .text = std::move(system)});
  return {.turns = std::move(turns), .tools = parse_tools(record)};
}

// The key of the record's list of turns; "" where it has none.
std::string_view turn_list(const Fields& record) {
  std::string_view found;
  for (const std::string_view key : kTurnLists) {
    if (!record.has(key)) continue;
    if (!found.empty()) record.place().fail(fmt::format("has both '{}' and '{}'", found, key), "remove one");
    found = key;
  }
  return found;
}

Record parse_messages(const Fields& record, UnreadKeys& unread) {
  check_keys(record, kMessagesKeys, kHistoryRefused, "", unread);
  return with_columns(parse_turns(record, turn_list(record), unread), record, unread);
}

// Parses earlier turns, [[user, answer], ...], whose answers are trained as in LLaMA-Factory.
std::vector<Turn> parse_history(const Fields& record) {
  std::vector<Turn> turns;
  if (!record.has("history") || is_empty(record.get("history"))) return turns;
  for (const ordered_json& pair : record.list("history")) {
    const auto is_text = [](const ordered_json& value) {
      return value.is_string();
    };
    if (!pair.is_array() || pair.size() != 2 || !std::ranges::all_of(pair, is_text))
      record.fail("history",
                  fmt::format("has an entry (number {}) that is not [user's text, answer]", turns.size() / 2 + 1));
    turns.push_back({.role = Role::kUser, .text = pair[0].get<std::string>()});
    turns.push_back({.role = Role::kAssistant, .text = pair[1].get<std::string>()});
  }
  return turns;
}

Record parse_instruction(const Fields& record, UnreadKeys& unread) {
  check_keys(record, kInstructionKeys, {}, "", unread);
  std::vector<Turn> turns = parse_history(record);
  std::string prompt = record.text(record.has("instruction") ? "instruction" : "input");
  if (record.has("instruction") && record.has("input")) {
    const std::string& input = record.text("input");
    if (!prompt.empty() && !input.empty()) prompt += "\n\n";
    prompt += input;
  }
  turns.push_back({.role = Role::kUser, .text = std::move(prompt)});
  turns.push_back({.role = Role::kAssistant, .text = record.text("output")});
  return with_columns(std::move(turns), record, unread);
}

// A bool beside prompt and completion says whether somebody liked the completion (TRL's unpaired preference).
void refuse_label(const Fields& record) {
  const ordered_json* label = record.find("label");
  if (label && label->is_boolean())
    record.place().fail("'label' is of preference data (KTO), which is not supported",
                        "keep the completions to train on, and remove the key");
}

Record parse_prompt_completion(const Fields& record, UnreadKeys& unread) {
  refuse_label(record);
  const bool lists = record.get("prompt").is_array();
  if (lists != record.get("completion").is_array())
    record.place().fail("one of 'prompt' and 'completion' is a list, the other is not",
                        "write both as strings, or both as lists of turns");
  if (!lists) {
    check_keys(record, kTextPairKeys, kTextPairRefused, "", unread);
    return PromptCompletion{.prompt = record.text("prompt"), .completion = record.text("completion")};
  }
  check_keys(record, kTurnPairKeys, kHistoryRefused, "", unread);
  std::vector<Turn> turns = parse_turns(record, "prompt", unread);
  for (Turn& turn : turns) turn.train = turn.train && turn.role != Role::kAssistant;
  std::ranges::move(parse_turns(record, "completion", unread), std::back_inserter(turns));
  return with_columns(std::move(turns), record, unread);
}

Record parse_text(const Fields& record, UnreadKeys& unread) {
  check_keys(record, kTextKeys, {}, "", unread);
  return record.text("text");
}

bool shows(const Fields& record, DatasetFormat format) {
  switch (format) {
    case DatasetFormat::kTokenized:
      return record.has("input_ids");
    case DatasetFormat::kMessages:
      return std::ranges::any_of(kTurnLists, [&](std::string_view key) { return record.has(key); });
    case DatasetFormat::kInstruction:
      return record.has("output") && (record.has("instruction") || record.has("input"));
    case DatasetFormat::kPromptCompletion:
      return record.has("prompt") && record.has("completion");
    case DatasetFormat::kText:
      return record.has("text");
    case DatasetFormat::kAuto:
    case DatasetFormat::kMegatron:
      break;
  }
  return false;
}

template <size_t n>
std::string_view first_of(const Fields& record, const std::array<std::string_view, n>& keys) {
  const auto found = std::ranges::find_if(keys, [&](std::string_view key) { return record.has(key); });
  return found == keys.end() ? "" : *found;
}

// The hint for a record that has none of the formats' keys.
std::string mend_of(const Fields& record) {
  constexpr std::array<std::string_view, 6> kQuestions = {"instruction", "prompt", "question",
                                                          "query",       "input",  "problem"};
  constexpr std::array<std::string_view, 6> kAnswers = {"output", "completion", "response",
                                                        "answer", "solution",   "target"};
  if (record.has("chosen") || record.has("rejected"))
    return "preference data (DPO, KTO) is not supported: write the answer to train on in a format's own keys";
  const std::string_view question = first_of(record, kQuestions), answer = first_of(record, kAnswers);
  if (question.empty() || answer.empty()) return kFormats;
  return fmt::format(
      "rename '{0}' and '{1}' to instruction and output (a question and its answer, by the chat template) or to prompt "
      "and completion (text and how it goes on, without one)",
      question, answer);
}

}  // namespace

std::string_view format_name(DatasetFormat format) {
  return find_key("dataset_format")->choices[static_cast<size_t>(format)];
}

DatasetFormat detect_format(const ordered_json& record, const std::string& where) {
  const FieldPlace place(where);
  const Fields fields(record, place);
  for (const DatasetFormat format : {DatasetFormat::kTokenized, DatasetFormat::kMessages, DatasetFormat::kInstruction,
                                     DatasetFormat::kPromptCompletion, DatasetFormat::kText})
    if (shows(fields, format)) return format;
  place.fail(fmt::format("the keys of the first record show no format: {}", fields.keys()), mend_of(fields));
}

Record parse_record(const ordered_json& record, DatasetFormat format, const std::string& where, UnreadKeys& unread) {
  MT_CHECK(format != DatasetFormat::kAuto);
  const FieldPlace place(where);
  if (format == DatasetFormat::kMegatron)
    place.fail("is a record, and format megatron is windows of indexed data", "leave dataset_format out");
  const Fields fields(record, place);
  if (!shows(fields, format))
    place.fail(fmt::format("is not of format {}: its keys are {}", format_name(format), fields.keys()),
               "every record must be of the file's format (dataset_format, or what the first record shows)");
  if (format == DatasetFormat::kMessages) return parse_messages(fields, unread);
  if (format == DatasetFormat::kInstruction) return parse_instruction(fields, unread);
  if (format == DatasetFormat::kPromptCompletion) return parse_prompt_completion(fields, unread);
  if (format == DatasetFormat::kText) return parse_text(fields, unread);
  return parse_tokenized(fields, unread);
}

}  // namespace mixtune
