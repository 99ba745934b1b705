#include "data/mistral_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "base/error.h"
#include "base/json_value.h"
#include "data/python_json.h"

namespace mixtune {

namespace {

using Part = Stretch::Part;

constexpr const char* kJoin = "\n\n";
using Turns = std::vector<Turn>;

bool is_alphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

bool is_function_name(std::string_view name) {
  return !name.empty() && name.size() <= 64 &&
         std::ranges::all_of(name, [](char c) { return is_alphanumeric(c) || c == '_' || c == '-'; });
}

bool is_call_id(std::string_view id) {
  return id.size() == 9 && std::ranges::all_of(id, is_alphanumeric);
}

// Throws for what mistral-common's validators refuse.
class Check {
 public:
  Check(int version, const Conversation& conversation, const std::string& where)
      : version_(version), conversation_(conversation), where_(where) {}

  void run(Role last) {
    const Turns& turns = conversation_.turns;
    if (turns.empty()) throw UserError(where_, "a conversation without a turn", "remove the record");
    if (version_ == 1 && !conversation_.tools.empty()) refuse_tools(where_);
    users_left_ = std::ranges::count(turns, Role::kUser, &Turn::role);
    for (size_t i = 0; i < turns.size(); ++i) {
      users_left_ -= turns[i].role == Role::kUser;
      here_ = fmt::format("{}, turn {}", where_, i + 1);
      turn(turns[i], i > 0 ? &turns[i - 1] : nullptr, i + 1 == turns.size());
    }
    if (turns.back().role != last)
      throw UserError(where_, fmt::format("the last turn is not the {}'s", last == Role::kUser ? "user" : "assistant"),
                      "remove what follows the last turn of that role");
    if (turns.size() == 1 && last == Role::kAssistant)
      throw UserError(where_, "an answer without a turn before it", "add the user's turn (it may be empty)");
  }

 private:
  [[noreturn]] void fail(const std::string& what, const std::string& mend) const { throw UserError(here_, what, mend); }

  [[noreturn]] static void refuse_tools(const std::string& where) {
    throw UserError(where, "chat template mistral-v1 has no place for tools",
                    "remove the record, write the calls as text, or use a checkpoint with a tokeniser of version 3");
  }

  void turn(const Turn& turn, const Turn* before, bool is_last) {
    if (turn.role == Role::kSystem && before && before->role != Role::kSystem)
      fail("a system turn after the conversation began", "put system text first");
    if (turn.role == Role::kTool) result(turn, before);
    if (turn.role == Role::kAssistant) answer(turn, is_last);
  }

  void answer(const Turn& turn, bool is_last) {
    if (pending_ != 0)
      fail(fmt::format("an answer while {} of the calls before it have no result", pending_),
           "add a tool's turn for each call");
    if (turn.text.empty() && turn.tool_calls.empty()) fail("an empty answer", "remove the turn or the record");
    if (!turn.tool_calls.empty() && version_ == 1) refuse_tools(here_);
    if (!turn.tool_calls.empty() && !turn.text.empty()) refuse_both();
    for (const ToolCall& call : turn.tool_calls) {
      if (!is_function_name(call.name)) refuse_name(call.name);
      const bool unnamed = call.id.empty() || call.id == "null";
      if (version_ == 3 && !(unnamed ? is_last : is_call_id(call.id))) refuse_id("call", call.id);
    }
    pending_ = turn.tool_calls.size();
    results_ = 0;
  }

  void result(const Turn& turn, const Turn* before) {
    if (version_ == 1) refuse_tools(here_);
    if (!before || (before->role != Role::kAssistant && before->role != Role::kTool) || pending_ == 0)
      fail("a tool's turn that answers no call", "put it after the assistant's turn that calls the tool");
    if (!turn.name.empty() && !is_function_name(turn.name)) refuse_name(turn.name);
    if (version_ == 3 && !is_call_id(turn.tool_call_id)) refuse_id("result", turn.tool_call_id);
    --pending_;
    if (version_ == 2 && ++results_ > 1 && users_left_ == 0)
      fail("chat template mistral-v2 has one result for each assistant's turn, this is a further one",
           "part the calls into turns of one call each");
  }

  [[noreturn]] void refuse_both() const {
    fail("an assistant's turn with text and tool calls, of which Mistral's template has one or the other",
         "remove the text or the calls");
  }

  [[noreturn]] void refuse_name(const std::string& name) const {
    fail(fmt::format("'{}' is no name of a function", printable(name)), "use letters, digits, '_' and '-', up to 64");
  }

  [[noreturn]] void refuse_id(const char* what, const std::string& id) const {
    fail(fmt::format("the {}'s id is '{}'", what, printable(id)),
         "chat template mistral-v3 needs 9 letters and digits; only calls of the last turn may go without");
  }

  int version_;
  const Conversation& conversation_;
  const std::string& where_;
  std::string here_;
  int64_t users_left_ = 0;            // users' turns after this one
  size_t pending_ = 0, results_ = 0;  // calls without a result, and results of the calls of a turn
};

bool are_one(const Turn& a, const Turn& b) {
  const bool alike = a.train == b.train && (!a.train || a.weight == b.weight);
  return a.role == b.role && a.role != Role::kTool && (a.role != Role::kAssistant || alike);
}

// Joins adjacent turns. Empty texts leave no trace. Prompts that are joined are trained where all of them are.
Turns joined(const Turns& conversation, const std::string& where) {
  Turns turns;
  for (const Turn& turn : conversation) {
    if (turns.empty() || !are_one(turns.back(), turn)) {
      turns.push_back(turn);
      continue;
    }
    Turn& whole = turns.back();
    whole.train = whole.train && turn.train;
    if (!whole.text.empty() && !turn.text.empty()) whole.text += kJoin;
    whole.text += turn.text;
    whole.tool_calls.insert(whole.tool_calls.end(), turn.tool_calls.begin(), turn.tool_calls.end());
    if (!whole.text.empty() && !whole.tool_calls.empty())
      throw UserError(where, "adjacent assistant's turns, one with text and one with tool calls",
                      "Mistral's template has one or the other: remove one");
  }
  return turns;
}

std::string as_json(const std::string& text) {
  if (text.empty()) return "{}";
  return dump_as_python(text).value_or(quote_as_python(text));
}

std::string call_json(int version, const ToolCall& call) {
  std::string json =
      fmt::format("{{\"name\": {}, \"arguments\": {}", quote_as_python(call.name), as_json(call.arguments));
  if (version == 3 && !call.id.empty() && call.id != "null") json += ", \"id\": " + quote_as_python(call.id);
  return json + "}";
}

std::string result_json(int version, const Turn& turn) {
  if (version == 3)
    return fmt::format("{{\"content\": {}, \"call_id\": {}}}", as_json(turn.text), quote_as_python(turn.tool_call_id));
  return fmt::format("[{{\"name\": {}, \"content\": {}}}]", turn.name.empty() ? "null" : quote_as_python(turn.name),
                     as_json(turn.text));
}

// The JSON of a tool as mistral-common's Tool has it: type, then function with name, description and parameters.
std::string tool_json(const std::string& text, const std::string& where) {
  const auto fail = [&](std::string_view what) {
    throw UserError(
        where, fmt::format("a tool {}", what),
        R"(write {"type": "function", "function": {"name": ..., "description": ..., "parameters": {...}}})");
  };
  const auto only = [&](const nlohmann::ordered_json& object, std::initializer_list<std::string_view> keys) {
    for (const auto& item : object.items())
      if (std::ranges::find(keys, item.key()) == keys.end())
        fail(fmt::format("with '{}', which Mistral's template has no place for", printable(item.key())));
  };
  const auto tool = nlohmann::ordered_json::parse(text, nullptr, false);
  if (!tool.is_object() || !tool.contains("function") || !tool["function"].is_object()) fail("without a 'function'");
  only(tool, {"type", "function"});
  if (tool.contains("type") && tool["type"] != "function") fail("whose 'type' is not \"function\"");
  const auto& function = tool["function"];
  only(function, {"name", "description", "parameters", "strict"});
  std::string description;
  if (const auto at = function.find("description"); at != function.end() && !at->is_null()) {
    if (!at->is_string()) fail("whose description is not a string");
    description = at->get<std::string>();
  }
  if (!function.contains("name") || !function["name"].is_string() ||
      !is_function_name(function["name"].get_ref<const std::string&>()))
    fail("without a name of letters, digits, '_' and '-'");
  std::string parameters = "{}";
  if (const auto at = function.find("parameters"); at != function.end() && !at->is_null()) {
    if (!at->is_object()) fail("whose parameters are not a JSON object");
    parameters = as_json(at->dump());
  }
  return fmt::format(R"({{"type": "function", "function": {{"name": {}, "description": {}, "parameters": {}}}}})",
                     quote_as_python(function["name"].get<std::string>()), quote_as_python(description), parameters);
}

template <class Items, class Write>
std::string json_list(const Items& items, const Write& write) {
  std::string json = "[";
  for (const auto& item : items) json += (json.size() > 1 ? ", " : "") + write(item);
  return json + "]";
}

class Renderer {
 public:
  Renderer(int version, const Marks& marks) : version_(version), marks_(marks) { special(marks.bos, Part::kPassed); }

  void v1(const Turn& turn) {
    if (turn.role == Role::kAssistant) {
      content(turn.text, part_of(turn));
      special(marks_.eos, part_of(turn));
    } else {
      content(fmt::format("[INST] {} [/INST]", turn.text), part_of(turn));
    }
  }

  void tools(const Conversation& conversation, const std::string& where) {
    if (conversation.tools.empty()) return;
    special("[AVAILABLE_TOOLS]");
    json(json_list(conversation.tools, [&](const std::string& tool) { return tool_json(tool, where); }));
    special("[/AVAILABLE_TOOLS]");
  }

  void user(const Turn& turn) {
    special("[INST]", part_of(turn));
    content(turn.text, part_of(turn));
    special("[/INST]", part_of(turn));
  }

  void result(const Turn& turn) {
    special("[TOOL_RESULTS]", part_of(turn));
    json(result_json(version_, turn), part_of(turn));
    special("[/TOOL_RESULTS]", part_of(turn));
  }

  void answer(const Turn& turn) {
    if (turn.tool_calls.empty()) {
      content(turn.text.substr(0, turn.text.find_last_not_of(' ') + 1), part_of(turn));
    } else {
      special("[TOOL_CALLS]", part_of(turn));
      json(json_list(turn.tool_calls, [&](const ToolCall& call) { return call_json(version_, call); }), part_of(turn));
    }
    special(marks_.eos, part_of(turn));
  }

  Stretches take() { return std::move(stretches_); }

 private:
  void special(std::string name, Part part = Part::kPrompt) {
    stretches_.push_back({std::move(name), Stretch::Kind::kSpecial, part});
  }
  void content(std::string text, Part part = Part::kPrompt) {
    stretches_.push_back({std::move(text), Stretch::Kind::kContent, part});
  }
  void json(std::string text, Part part = Part::kPrompt) {
    stretches_.push_back({std::move(text), Stretch::Kind::kText, part});
  }

  int version_;
  const Marks& marks_;
  Stretches stretches_;
};

}  // namespace

Stretches render_mistral(int version, const Conversation& conversation, const Marks& marks, bool for_training,
                         const std::string& where) {
  Check(version, conversation, where).run(for_training ? Role::kAssistant : Role::kUser);
  Turns turns = joined(conversation.turns, where);
  Turn system;
  if (turns.front().role == Role::kSystem) {
    system = std::move(turns.front());
    turns.erase(turns.begin());
  }
  if (turns.empty() || turns.front().role != Role::kUser) turns.insert(turns.begin(), Turn{.role = Role::kUser});
  size_t last_user = turns.size() - 1;
  while (turns[last_user].role != Role::kUser) --last_user;
  if (!system.text.empty()) {
    Turn& bearer = turns[version == 1 ? 0 : last_user];
    bearer.text = system.text + kJoin + bearer.text;
    bearer.train = bearer.train && system.train;
  }

  Renderer renderer(version, marks);
  for (size_t i = 0; i < turns.size(); ++i) {
    const Turn& turn = turns[i];
    if (version == 1) {
      renderer.v1(turn);
      continue;
    }
    if (turn.role == Role::kUser) {
      if (i == last_user) renderer.tools(conversation, where);
      renderer.user(turn);
      continue;
    }
    const bool forgotten = version == 2 && i < last_user;  // v2 leaves out these calls and results
    if (turn.role == Role::kTool) {
      if (!forgotten) renderer.result(turn);
    } else if (!forgotten || turn.tool_calls.empty()) {
      renderer.answer(turn);
    }
  }
  return renderer.take();
}

}  // namespace mixtune
