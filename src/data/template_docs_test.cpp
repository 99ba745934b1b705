// docs/templates.md shows what the templates render, and what of that is trained.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <sstream>

#include "data/known_templates.h"
#include "data/mistral_template.h"
#include "data/template_fixtures.h"

namespace mixtune {
namespace {

// The block of the page that begins with ```NAME.
std::string shown(const std::string& name) {
  const std::string page = TestFolder::read(source_path("docs/templates.md")), open = "```" + name + "\n";
  const size_t begin = page.find(open) + open.size();
  return page.substr(begin, page.find("```", begin) - begin);
}

const Conversation kExample = {.turns = {{.role = Role::kSystem, .text = "Be brief."},
                                         {.role = Role::kUser, .text = "Hi"},
                                         {.role = Role::kAssistant, .text = "Yo."},
                                         {.role = Role::kUser, .text = "Bye"},
                                         {.role = Role::kAssistant, .text = "Later."}}};
const Marks kMarks = {.bos = "<s>", .eos = "</s>"};

// The text with « and » around trained parts. Stretches that are encoded apart stand in quotes, with spaces between.
std::string rendered(const Stretches& stretches, bool apart) {
  std::string text;
  bool trains = false;
  for (size_t i = 0; i < stretches.size(); ++i) {
    const bool trained = stretches[i].part.kind == Stretch::Part::kAnswer;
    if (trains && !trained) text += "»";
    if (apart && i > 0) text += " ";
    if (!trains && trained) text += "«";
    trains = trained;
    std::string piece = stretches[i].text;
    if (apart && stretches[i].kind != Stretch::Kind::kSpecial) {
      for (size_t at = 0; (at = piece.find('\n', at)) != piece.npos;) piece.replace(at, 1, "\\n");
      piece = fmt::format("\"{}\"", piece);
    }
    text += piece;
  }
  return text + (trains ? "»" : "");
}

TEST(TemplatesPage, ShowsMistrals) {
  EXPECT_EQ(shown("mistral-v1"), rendered(render_mistral(1, kExample, kMarks, true, ""), true) + "\n");
  EXPECT_EQ(shown("mistral-v3"), rendered(render_mistral(3, kExample, kMarks, true, ""), true) + "\n");
  EXPECT_EQ(shown("mistral-v3"), rendered(render_mistral(2, kExample, kMarks, true, ""), true) + "\n");
}

TEST(TemplatesPage, ShowsTools) {
  const Conversation tools = {.turns = {{.role = Role::kUser, .text = "The time?"},
                                        {.role = Role::kAssistant, .tool_calls = {{"abcDEF123", "now", "{}"}}},
                                        {.role = Role::kTool, .text = "{\"hour\":5}", .tool_call_id = "abcDEF123"},
                                        {.role = Role::kAssistant, .text = "It is five."}},
                              .tools = {R"({"type": "function", "function": {"name": "now"}})"}};
  std::string page = TestFolder::read(source_path("docs/templates.md"));
  for (size_t at = 0; (at = page.find('\n', at)) != page.npos;) page[at] = ' ';
  EXPECT_NE(page.find(rendered(render_mistral(3, tools, kMarks, true, ""), true)), page.npos);
}

TEST(TemplatesPage, ShowsTheOthers) {
  using Template = ChatTemplateName;
  for (const Template name :
       {Template::kChatml, Template::kZephyr, Template::kVicuna, Template::kAlpaca, Template::kLlama2}) {
    const std::string text = rendered(render_text(name, usual_variant(name), kExample, kMarks, true, ""), false);
    EXPECT_EQ(shown(std::string(template_name(name))), text.ends_with("\n") ? text : text + "\n");
  }
}

}  // namespace
}  // namespace mixtune
