#include "checkpoint/adapter_pattern.h"

#include "checkpoint/test_model.h"

namespace mixtune {
namespace {

constexpr const char* kName = "model.layers.12.self_attn.q_proj";

bool matches(const std::string& expression, std::string_view name = kName) {
  return AdapterPattern(expression, "config").matches(name);
}

// What Python's re.match(rf"(.*\.)?({key})$", name) says.
TEST(AdapterPattern, MatchesAsPeftDoes) {
  for (const char* expression : {"q_proj",
                                 "self_attn.q_proj",
                                 "self_attn\\.q_proj",
                                 "layers.12.self_attn.q_proj",
                                 kName,
                                 ".*q_proj",
                                 ".*\\.q_proj",
                                 "^model.layers.12.self_attn.q_proj",
                                 "layers\\.(1|12)\\..*",
                                 "layers\\.\\d+\\.self_attn\\.[qk]_proj",
                                 "[^v]_proj",
                                 "(q|k|v)_proj",
                                 "(?:q|k)_proj$",
                                 "q_?proj",
                                 "qa*_proj",
                                 "[a-q]_proj",
                                 ".+",
                                 "x|q_proj",
                                 "(self_attn.)+q_proj",
                                 "q_proj|",
                                 "\\w+",
                                 ".*?q_proj",
                                 "[]q]_proj",
                                 "[q-]_proj"})
    EXPECT_TRUE(matches(expression)) << expression;
}

TEST(AdapterPattern, MatchesNothingElse) {
  for (const char* expression :
       {"", "proj", "k_proj", "attn.q_proj", "^q_proj", "q_proj.weight", "layers.1.self_attn.q_proj", "self_attn", "q",
        "[^q]_proj", "\\d_proj", "Q_proj", "q$_proj", "layers\\.1\\..*"})
    EXPECT_FALSE(matches(expression)) << expression;
  EXPECT_FALSE(matches("gate_up_proj", "model.layers.0.mlp.experts.down_proj"));
  EXPECT_TRUE(matches(".*\\.gate_up_proj", "model.layers.0.mlp.experts.gate_up_proj"));
  EXPECT_FALSE(matches(".*\\.gate_up_proj", "gate_up_proj"));
}

TEST(AdapterPattern, RefusesWhatItDoesNotRead) {
  const std::vector<std::pair<std::string, std::string>> bad = {{"(", "lacks a ')'"},
                                                                {")", "')' too many"},
                                                                {"[q", "ends too early"},
                                                                {"q\\", "ends too early"},
                                                                {"*q", "repeats"},
                                                                {"q**", "repeats"},
                                                                {"q{2}", "'{'"},
                                                                {"(?=q)", "'(?'"},
                                                                {"(?P<name>q)", "'(?'"},
                                                                {"\\bq", "'\\b'"},
                                                                {"(q)\\1", "'\\1'"},
                                                                {"[z-a]", "bad range"},
                                                                {std::string(1001, 'q'), "1000 bytes"},
                                                                {std::string(100, '('), "too deeply"}};
  for (const auto& [expression, why] : bad)
    expect_user_error([&] { AdapterPattern(expression, "a/adapter_config.json"); },
                      {"a/adapter_config.json: pattern", why, "rank_pattern"});
}

// What would take a backtracking matcher longer than the universe.
TEST(AdapterPattern, TakesTimeInProportion) {
  std::string expression;
  for (int i = 0; i < 60; ++i) expression += "(a*)*";
  EXPECT_FALSE(matches(expression + "b", std::string(2000, 'a')));
  EXPECT_TRUE(matches(expression, std::string(2000, 'a')));
}

}  // namespace
}  // namespace mixtune
