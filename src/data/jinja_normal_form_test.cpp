#include "data/jinja_normal_form.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "data/known_templates.h"
#include "data/test_folder.h"

namespace mixtune {
namespace {

const std::string kChatml =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n' }}{% endfor %}";

TEST(JinjaNormalForm, IsOneForTemplatesThatRenderTheSame) {
  for (const char* same : {
           "{%for m in messages%}{{'<|im_start|>'+m.role+'\n'+m.content+'<|im_end|>\\n'}}{%endfor%}",
           "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor "
           "%}",
           "{%- for message in messages -%}\n  {{- \"<|im_start|>\" ~ message[\"role\"] -}}\n{{ '\\n' + "
           "message.content }}<|im_end|>{{ '\\n' }}\n{%- endfor -%}\n",
           "{# a comment #}\n{% for message in messages %}\n<|im_start|>{{ message.role }}\n{{ message.content "
           "}}<|im_end|>\n"
           "{% endfor %}\n",
           "{% for message in messages %}\n    {% generation %}\n<|im_start|>{{ message.role + '\\n' + message.content "
           "}}"
           "<|im_end|>\n    {% endgeneration %}\n{% endfor %}",
       })
    EXPECT_EQ(jinja_normal_form(same), jinja_normal_form(kChatml)) << same;
}

TEST(JinjaNormalForm, IsAnotherForTemplatesThatDoNot) {
  for (const std::string& other : std::vector<std::string>{
           std::string(),
           "{{ bos_token }}" + kChatml,
           kChatml + " ",
           "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] }}{% endfor "
           "%}",
           "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' + message['content'] + '<|im_end|>' "
           "+ "
           "'\\n' }}{% endfor %}",
           "{% for message in messages %} {{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
           "'<|im_end|>' + "
           "'\\n' }}{% endfor %}",
           "{% for message in messages[1:] %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
           "'<|im_end|>' + '\\n' }}{% endfor %}",
           "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + "
           "'<|im_end|>' + '\\n' }}{% endfor %}",
       })
    EXPECT_NE(jinja_normal_form(other), jinja_normal_form(kChatml)) << other;
}

// Does as Jinja does: a block's own line leaves nothing, an output's line break stays, and '-' strips to the next text.
TEST(JinjaNormalForm, WhiteSpaceControlIsTransformers) {
  EXPECT_EQ(jinja_normal_form("a\n  {% if x %}\nb\n  {% endif %}\nc\n"), "'a\\n'{%if x%}'b\\n'{%endif%}'c'");
  EXPECT_EQ(jinja_normal_form("{{ x }}\n  {{ y }}"), "{{x}}'\\n  '{{y}}");
  EXPECT_EQ(jinja_normal_form("a \n {%- if x -%} \n b"), "'a'{%if x%}'b'");
  EXPECT_EQ(jinja_normal_form("a {% if x %}b"), "'a '{%if x%}'b'");
  EXPECT_EQ(jinja_normal_form("  {%+ if x +%}\nb"), "'  '{%if x%}'\\nb'");
  EXPECT_EQ(jinja_normal_form("{{ '}}' }}{{ \"%}\" }}"), "'}}%}'");
}

TEST(JinjaNormalForm, OperatorsKeepTheirMeaning) {
  EXPECT_EQ(jinja_normal_form("{{ a + b if c else d }}"), "{{a+b if c else d}}");
  EXPECT_EQ(jinja_normal_form("{{ (a + b) | trim + c }}"), "{{(a+b)|trim}}{{c}}");
  EXPECT_EQ(jinja_normal_form("{{ 'a' + 'b' | upper }}"), "'a'{{'b'|upper}}");
  EXPECT_EQ(jinja_normal_form("{{ ('a' + 'b') | upper }}"), "{{('ab')|upper}}");
  EXPECT_EQ(jinja_normal_form("{{ x | join('a' + 'b') }}"), "{{x|join('ab')}}");
}

TEST(JinjaNormalForm, TakesWhatIsNoJinja) {
  for (const char* text :
       {"{", "{{", "{% if", "{#", "{{ 'a", "{{ '\\", "{%-", "{{-}}", "{{--}}", "}}", "{%'%}", "\xff{{\xff}}"})
    EXPECT_NO_THROW(jinja_normal_form(text)) << text;
}

// Text of the files, as the build put it into the program.
TEST(KnownTemplates, AreTheFilesAndDiffer) {
  std::vector<std::string> forms;
  for (const KnownTemplate& known : known_templates()) {
    const std::string path = source_path("src/data/templates/" + std::string(known.file) + ".jinja");
    EXPECT_EQ(known.source(), TestFolder::read(path)) << path;
    forms.push_back(jinja_normal_form(known.source()));
    EXPECT_EQ(find_known_template(known.source())->name, known.name) << path;
    EXPECT_EQ(find_known_template(known.source())->variant, known.variant) << path;
  }
}

}  // namespace
}  // namespace mixtune
