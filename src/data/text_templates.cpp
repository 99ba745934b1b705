#include "data/text_templates.h"

#include <fmt/format.h>

#include <array>
#include <span>
#include <string_view>

#include "base/error.h"
#include "data/chat_template.h"

namespace mixtune {

namespace {

using Kind = Stretch::Kind;
using Part = Stretch::Part;

constexpr const char* kVicunaSystem =
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and "
    "polite answers to the user's questions.";
constexpr const char* kAlpacaSystem =
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.";

std::string_view role_name(Role role) {
  return role == Role::kSystem ? "system" : role == Role::kUser ? "user" : "assistant";
}

// Does str.strip(): white space as Unicode has it.
std::string_view stripped(std::string_view text) {
  constexpr auto kSpaces = std::to_array<std::string_view>(
      {" ",      "\t",     "\n",     "\v",     "\f",     "\r",     "\x1c",   "\x1d",   "\x1e",   "\x1f",
       "\u0085", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
       "\u2007", "\u2008", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"});
  for (bool more = true; more;) {
    more = false;
    for (const std::string_view space : kSpaces) {
      if (text.starts_with(space)) {
        text.remove_prefix(space.size());
        more = true;
      }
      if (text.ends_with(space)) {
        text.remove_suffix(space.size());
        more = true;
      }
    }
  }
  return text;
}

class Writer {
 public:
  void text(std::string_view text, Part part = Part::kPrompt) { add(text, Kind::kText, part); }
  void content(std::string_view text, Part part = Part::kPrompt) { add(text, Kind::kContent, part); }
  void mark(std::string_view name, Part part = Part::kPrompt) { add(name, Kind::kSpecial, part); }
  Stretches take() { return std::move(stretches_); }

 private:
  void add(std::string_view text, Kind kind, Part part) { stretches_.push_back({std::string(text), kind, part}); }

  Stretches stretches_;
};

// The common part of the templates: the turns, the system's text before them, and where the prompt ends.
struct Dialogue {
  std::span<const Turn> turns;  // without the system's, where that stands first
  Turn system;
  bool has_system = false;  // one of its own, or the variant's
  bool for_training;
};

void write_chatml(Writer& out, const Dialogue& dialogue) {
  const auto write = [&](const Turn& turn) {
    out.mark("<|im_start|>", frame_of(turn));
    out.text(fmt::format("{}\n", role_name(turn.role)), frame_of(turn));
    out.content(turn.text, part_of(turn));
    out.mark("<|im_end|>", part_of(turn));
    out.text("\n", frame_of(turn));
  };
  if (dialogue.has_system) write(dialogue.system);
  for (const Turn& turn : dialogue.turns) write(turn);
  if (dialogue.for_training) return;
  out.mark("<|im_start|>");
  out.text("assistant\n");
}

void write_zephyr(Writer& out, const Dialogue& dialogue, const Marks& marks) {
  const auto write = [&](const Turn& turn) {
    out.mark(fmt::format("<|{}|>", role_name(turn.role)), frame_of(turn));
    out.text("\n", frame_of(turn));
    out.content(turn.text, part_of(turn));
    out.mark(marks.eos, part_of(turn));
    out.text("\n", frame_of(turn));
  };
  if (dialogue.has_system) write(dialogue.system);
  for (const Turn& turn : dialogue.turns) write(turn);
  if (dialogue.for_training) return;
  out.mark("<|assistant|>");
  out.text("\n");
}

void write_vicuna(Writer& out, const Dialogue& dialogue, const Marks& marks) {
  if (dialogue.has_system) {
    out.content(dialogue.system.text, part_of(dialogue.system));
    out.text(" ", frame_of(dialogue.system));
  }
  for (const Turn& turn : dialogue.turns) {
    const bool answer = turn.role == Role::kAssistant;
    out.text(answer ? "ASSISTANT: " : "USER: ", frame_of(turn));
    out.content(turn.text, part_of(turn));
    answer ? out.mark(marks.eos, part_of(turn)) : out.text(" ", frame_of(turn));
  }
  if (!dialogue.for_training) out.text("ASSISTANT:");
}

void write_alpaca(Writer& out, const Dialogue& dialogue, const Marks& marks, bool ends_with_gap) {
  if (dialogue.has_system) {
    out.content(dialogue.system.text, part_of(dialogue.system));
    out.text("\n\n", frame_of(dialogue.system));
  }
  for (size_t i = 0; i < dialogue.turns.size(); ++i) {
    const Turn& turn = dialogue.turns[i];
    const bool answer = turn.role == Role::kAssistant;
    out.text(answer ? "### Response:\n" : "### Instruction:\n", frame_of(turn));
    out.content(turn.text, part_of(turn));
    if (answer) out.mark(marks.eos, part_of(turn));
    if (i + 1 < dialogue.turns.size() || !dialogue.for_training || ends_with_gap) out.text("\n\n", frame_of(turn));
  }
  if (!dialogue.for_training) out.text("### Response:\n");
}

void write_llama2(Writer& out, const Dialogue& dialogue, const Marks& marks, const std::string& where) {
  for (size_t i = 0; i < dialogue.turns.size(); ++i) {
    const Turn& turn = dialogue.turns[i];
    if ((turn.role == Role::kUser) != (i % 2 == 0))
      throw UserError(fmt::format("{}, turn {}", where, i + 1),
                      "chat template llama-2 has user and assistant in alternation, the user first",
                      "join neighbouring turns of one role, or use another template");
    if (turn.role == Role::kAssistant) {
      out.text(" ");
      out.content(stripped(turn.text), part_of(turn));
      out.text(" ", part_of(turn));
      out.mark(marks.eos, part_of(turn));
      continue;
    }
    const bool bears_system = i == 0 && dialogue.has_system;
    const std::string text =
        bears_system ? fmt::format("<<SYS>>\n{}\n<</SYS>>\n\n{}", dialogue.system.text, turn.text) : turn.text;
    const Part part = bears_system && !dialogue.system.train ? Part(Part::kPassed) : part_of(turn);
    out.mark(marks.bos, Part::kPassed);
    out.mark("[INST]", part);
    out.text(" ", part);
    out.content(stripped(text), part);
    out.text(" ", part);
    out.mark("[/INST]", part);
  }
}

void check(ChatTemplateName name, const Conversation& conversation, bool for_training, const std::string& where) {
  const auto& turns = conversation.turns;
  if (turns.empty()) throw UserError(where, "a conversation without a turn", "remove the record");
  const auto refuse = [&](const std::string& at, const char* what) {
    throw UserError(at, fmt::format("chat template {} has no place for {}", template_name(name), what),
                    "remove it, write it as text, or use a checkpoint whose template has");
  };
  if (!conversation.tools.empty()) refuse(where, "tools");
  const bool free = name == ChatTemplateName::kChatml || name == ChatTemplateName::kZephyr;
  for (size_t i = 0; i < turns.size(); ++i) {
    const std::string here = fmt::format("{}, turn {}", where, i + 1);
    if (!turns[i].tool_calls.empty() || turns[i].role == Role::kTool) refuse(here, "tool calls and their results");
    if (turns[i].role == Role::kSystem && i > 0 && !free) refuse(here, "a system turn that is not the first");
  }
  const Role last = for_training ? Role::kAssistant : Role::kUser;
  if (turns.back().role != last)
    throw UserError(where, fmt::format("the last turn is not the {}'s", role_name(last)),
                    "remove what follows the last turn of that role");
}

}  // namespace

TemplateVariant usual_variant(ChatTemplateName name) {
  if (name == ChatTemplateName::kVicuna) return {.default_system = kVicunaSystem, .bos = true};
  if (name == ChatTemplateName::kAlpaca) return {.default_system = kAlpacaSystem, .bos = true};
  return {};
}

Stretches render_text(ChatTemplateName name, const TemplateVariant& variant, const Conversation& conversation,
                      const Marks& marks, bool for_training, const std::string& where) {
  check(name, conversation, for_training, where);
  Dialogue dialogue{
      .turns = conversation.turns, .system = {.text = variant.default_system}, .for_training = for_training};
  if (conversation.turns.front().role == Role::kSystem) {
    dialogue.system = conversation.turns.front();
    dialogue.turns = dialogue.turns.subspan(1);
    dialogue.has_system = true;
  } else {
    dialogue.has_system = !variant.default_system.empty();
  }
  Writer out;
  if (variant.bos) out.mark(marks.bos, Part::kPassed);
  switch (name) {
    case ChatTemplateName::kChatml:
      write_chatml(out, dialogue);
      break;
    case ChatTemplateName::kZephyr:
      write_zephyr(out, dialogue, marks);
      break;
    case ChatTemplateName::kVicuna:
      write_vicuna(out, dialogue, marks);
      break;
    case ChatTemplateName::kAlpaca:
      write_alpaca(out, dialogue, marks, variant.ends_with_gap);
      break;
    case ChatTemplateName::kLlama2:
      write_llama2(out, dialogue, marks, where);
      break;
    default:
      MT_CHECK(false);
  }
  return out.take();
}

}  // namespace mixtune
