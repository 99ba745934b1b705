#include "data/turns.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "data/closed_keys.h"
#include "data/tools.h"
#include "data/weights.h"

namespace mixtune {

namespace {

using nlohmann::ordered_json;

constexpr std::array<std::pair<std::string_view, Role>, 14> kRoles = {{{"user", Role::kUser},
                                                                       {"assistant", Role::kAssistant},
                                                                       {"system", Role::kSystem},
                                                                       {"tool", Role::kTool},
                                                                       {"human", Role::kUser},
                                                                       {"prompter", Role::kUser},
                                                                       {"gpt", Role::kAssistant},
                                                                       {"chatgpt", Role::kAssistant},
                                                                       {"bot", Role::kAssistant},
                                                                       {"model", Role::kAssistant},
                                                                       {"ai", Role::kAssistant},
                                                                       {"developer", Role::kSystem},
                                                                       {"function", Role::kTool},
                                                                       {"observation", Role::kTool}}};
constexpr std::string_view kCallRole = "function_call";  // an assistant's turn that is a call has this role

constexpr const char* kRoleMend =
    "roles are system (developer), user (human, prompter), assistant (gpt, chatgpt, bot, model, ai), tool (function, "
    "observation) and function_call";
constexpr const char* kTurnMend = R"(a turn has "role" and "content", or "from" and "value")";

constexpr std::array<std::string_view, 5> kTrainKeys = {"train", "training", "trainable", "loss", "weight"};
constexpr std::array<std::string_view, 11> kTurnKeys = {"role",   "from",       "content",      "value",
                                                        "train",  "training",   "trainable",    "loss",
                                                        "weight", "tool_calls", "function_call"};
constexpr std::array<std::string_view, 13> kToolTurnKeys = {
    "role", "from",   "content",    "value",         "train",        "training", "trainable",
    "loss", "weight", "tool_calls", "function_call", "tool_call_id", "name"};

constexpr std::array kRefusedInTurn = {
    RefusedKey{"reasoning", kReasoning, kIntoText},
    RefusedKey{"reasoning_details", kReasoning, kIntoText},
    RefusedKey{"think", kReasoning, kIntoText},
    RefusedKey{"mask", "does not say whether 0 or 1 is trained", "give the turn 'train' (true or false)"},
    RefusedKey{"masked", "is not read", "give the turn 'train' (true or false)"},
    RefusedKey{"train_detail", "trains parts of a turn, which is not supported", "use format tokenized"},
};

constexpr std::array<std::string_view, 3> kTextTypes = {"text", "input_text", "output_text"};
constexpr std::array<std::string_view, 2> kPartKeys = {"type", "text"};

std::string part_text(const ordered_json& part, const FieldPlace& place, const std::string& prefix,
                      UnreadKeys& unread) {
  constexpr const char* kMend = R"(a content is a string, or a list of strings and {"type": "text", "text": "..."})";
  if (part.is_string()) return part.get<std::string>();
  if (!part.is_object()) place.fail(fmt::format("is {}, not text", kind_of(part)), kMend);
  const Fields fields(part, place);
  const std::string& type = fields.text("type");
  if (std::ranges::find(kTextTypes, type) == kTextTypes.end())
    place.fail(fmt::format("is of type '{}': only text is read", printable(type)), kMend);
  check_keys(fields, kPartKeys, {}, prefix, unread);
  return fields.text("text");
}

// The weight of its tokens by the turn's flags, 0 where it is not trained; `weight` where it has none. `true`, which
// says that it is trained, agrees with any weight but 0.
float parse_weight(const Fields& fields, float weight) {
  std::string_view first;
  bool says_how_much = false;
  for (const std::string_view key : kTrainKeys) {
    const ordered_json* value = fields.find(key);
    if (!value) continue;
    const std::optional<float> found = as_weight(*value);
    if (!found && value->is_number())
      fields.fail(key, fmt::format("is {}, not 0 or a weight from {} to {}", kind_of(*value), kMinWeight, kMaxWeight));
    if (!found) fields.fail(key, fmt::format("is {}, not true or false, 1 or 0, or a weight", kind_of(*value)));
    const bool is_number = value->is_number(), both_number = says_how_much && is_number;
    if (!first.empty() && (both_number ? *found != weight : (*found == 0) != (weight == 0)))
      fields.place().fail(fmt::format("'{}' and '{}' do not agree", first, key), "keep one of them");
    if (first.empty() || is_number) weight = *found;
    if (first.empty()) first = key;
    says_how_much |= is_number;
  }
  return weight;
}

// Refuses to train a prompt for one turn: that is for the run to say. A turn may say that it is not trained.
void check_prompt_flag(const Fields& fields, const Turn& turn) {
  if (turn.role != Role::kAssistant && parse_weight(fields, 0) != 0)
    fields.place().fail("is flagged to be trained, but is not an assistant's",
                        "remove the flag: only answers are trained turn by turn (train_on_prompt: true trains all)");
}

// Refuses `prefix: true`, which asks that the turn's end is not written.
void check_prefix(const Fields& fields) {
  const ordered_json* prefix = fields.find("prefix");
  if (prefix && as_flag(*prefix) != false)
    fields.place().fail("'prefix' asks for a turn without an end, which is not supported", "remove it");
}

const ordered_json* calls_of(const Fields& fields) {
  const ordered_json* found = nullptr;
  for (const char* key : {"tool_calls", "function_call"}) {
    const ordered_json* value = fields.find(key);
    if (!value || is_empty(*value)) continue;
    if (found) fields.place().fail("has both 'tool_calls' and 'function_call'", "remove one");
    found = value;
  }
  return found;
}

// The calls of a turn whose role is function_call: one, or a list of calls, as JSON.
std::vector<ToolCall> calls_of_content(const Fields& fields, std::string_view key) {
  const ordered_json& content = fields.get(key);
  if (!content.is_string()) return parse_tool_calls(content, fields.place());
  return parse_tool_calls(parse_json_string(content.get_ref<const std::string&>(), key, fields.place()),
                          fields.place());
}

// The keys for who speaks and what.
std::pair<const char*, const char*> dialect(const Fields& fields) {
  const bool openai = fields.has("role") || fields.has("content"),
             share_gpt = fields.has("from") || fields.has("value");
  if (openai && share_gpt) fields.place().fail("mixes two dialects", kTurnMend);
  if (!openai && !share_gpt) fields.place().fail(fmt::format("has keys {}", fields.keys()), kTurnMend);
  return share_gpt ? std::pair("from", "value") : std::pair("role", "content");
}

Role parse_role(std::string_view name, const FieldPlace& place) {
  for (const auto& [known, role] : kRoles)
    if (name == known) return role;
  if (name == kCallRole) return Role::kAssistant;
  place.fail(fmt::format("unknown role '{}'", printable(name)), kRoleMend);
}

void read_tool_answer(Turn& turn, const Fields& fields) {
  if (fields.has("tool_call_id")) turn.tool_call_id = fields.text("tool_call_id");
  if (fields.has("name")) turn.name = fields.text("name");
}

Turn parse_turn(const ordered_json& object, const FieldPlace& place, const std::string& prefix, UnreadKeys& unread) {
  if (!object.is_object()) place.fail(fmt::format("is {}, not an object", kind_of(object)), kTurnMend);
  const Fields fields(object, place);
  const auto [role_key, content_key] = dialect(fields);
  const std::string& role = fields.text(role_key);
  Turn turn{.role = parse_role(role, place)};
  if (role == kCallRole) {
    turn.tool_calls = calls_of_content(fields, content_key);
  } else if (const ordered_json* calls = calls_of(fields)) {
    if (turn.role != Role::kAssistant) place.fail("calls a tool, but is not an assistant's", "remove the call");
    turn.tool_calls = parse_tool_calls(*calls, place);
  }
  if (role != kCallRole && (turn.tool_calls.empty() || fields.has(content_key)))
    turn.text = parse_content(fields, content_key, unread);
  check_prompt_flag(fields, turn);
  check_prefix(fields);
  const float weight = parse_weight(fields, 1);
  turn.train = weight != 0;
  if (turn.train) turn.weight = weight;
  if (turn.role == Role::kTool) read_tool_answer(turn, fields);
  const std::span<const std::string_view> read =
      turn.role == Role::kTool ? std::span<const std::string_view>(kToolTurnKeys) : kTurnKeys;
  check_keys(fields, read, kRefusedInTurn, prefix, unread);
  return turn;
}

}  // namespace

std::string parse_content(const Fields& fields, std::string_view key, UnreadKeys& unread) {
  const ordered_json& content = fields.get(key);
  if (!content.is_array()) return fields.text(key);
  std::string text;
  size_t number = 0;
  for (const ordered_json& part : content) {
    const std::string more = part_text(part, {fields.place(), "part", ++number}, fmt::format("{}[]", key), unread);
    if (!text.empty() && !more.empty()) text += "\n\n";
    text += more;
  }
  return text;
}

std::vector<Turn> parse_turns(const Fields& record, std::string_view key, UnreadKeys& unread) {
  const ordered_json& list = record.list(key);
  const std::string prefix = fmt::format("{}[]", key);
  std::vector<Turn> turns;
  turns.reserve(list.size());
  for (const ordered_json& turn : list)
    turns.push_back(parse_turn(turn, {record.place(), "turn", turns.size() + 1}, prefix, unread));
  return turns;
}

}  // namespace mixtune
