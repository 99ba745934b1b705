// Where `mixtune generate` stops.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include <nlohmann/json.hpp>

#include "base/test_paths.h"
#include "program.h"

namespace mixtune {
namespace {

using testing::HasSubstr;

class Generate : public testing::Test {
 protected:
  Generate() { make_model(path("model")); }

  std::filesystem::path path(const std::string& name) const { return work_ / name; }

  Outcome generate(const std::string& prompt) const {
    return run_mixtune({"generate", "model", prompt, "--max-new-tokens=6"}, work_.path());
  }

  std::vector<int> ids() const {
    const Outcome outcome = generate("--ids=1,5,9");
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    std::istringstream words(outcome.out);
    std::vector<int> ids;
    for (int id; words >> id;) ids.push_back(id);
    return ids;
  }

  // Sets the end of text in config.json, or generation_config.json.
  void set_config_end(const std::string& value) const {
    std::string text = read(path("model/config.json"));
    const std::string key = "\"eos_token_id\": ";
    const size_t at = text.find(key) + key.size();
    text.replace(at, text.find_first_of(",}\n", at) - at, value);
    write(path("model/config.json"), text);
  }
  void set_generation_end(const std::string& value) const {
    write(path("model/generation_config.json"), "{\"eos_token_id\": " + value + "}");
  }

  TempFolder work_;
};

// The token that the model gives first ends its text, by either file and by each place of a list.
TEST_F(Generate, EveryTokenThatEndsATextEndsIt) {
  const std::vector<int> unbounded = ids();
  ASSERT_EQ(unbounded.size(), 6u);
  const std::string end = std::to_string(unbounded[0]),
                    list = "[" + std::to_string(unbounded[0] == 7 ? 8 : 7) + ", " + end + "]";
  for (const std::string& value : {end, list}) {
    set_generation_end(value);
    EXPECT_EQ(ids(), std::vector{unbounded[0]}) << value;
  }
  set_generation_end("null");
  EXPECT_EQ(ids(), unbounded);
  set_config_end(end);
  EXPECT_EQ(ids(), std::vector{unbounded[0]});
  set_generation_end("[]");
  EXPECT_EQ(ids(), std::vector{unbounded[0]});
  set_config_end("null");
  EXPECT_EQ(ids(), unbounded);
}

TEST_F(Generate, ATextEndsWhereIdsDo) {
  const std::string unbounded = generate("--prompt=hello").out;
  write(path("model/generation_config.json"), R"({"eos_token_id": []})");
  EXPECT_EQ(generate("--prompt=hello").out, unbounded);
  std::string all = "[0";
  for (int id = 1; id < 4096; ++id) all += ", " + std::to_string(id);
  set_generation_end(all + "]");
  EXPECT_LT(generate("--prompt=hello").out.size(), unbounded.size());
}

// Who reads no more than its beginning closes the pipe while the rest is not there yet.
TEST_F(Generate, ATextIsPrintedAsItComes) {
  const Outcome outcome =
      run_shell("(\"$0\" generate " + source_path("examples/quickstart/pretrained") +
                    " --prompt 'Once upon a time' --max-new-tokens 2000; echo \"ended with $?\" >&2) | head -c 3",
                work_.path());
  EXPECT_EQ(outcome.out.size(), 3u);
  EXPECT_THAT(outcome.err, HasSubstr("standard output"));
  EXPECT_THAT(outcome.err, HasSubstr("ended with 1"));
}

// Of unequal lengths, more of them than a batch, and one that is empty; greedy, and drawn.
TEST_F(Generate, PromptsOfAFileAreAnsweredAsEachAlone) {
  const std::vector<std::string> prompts = {"Define: otter", "a", "Once upon a time there was a caf\xC3\xA9", "", "a"};
  write(path("prompts.jsonl"),
        "\"Define: otter\"\n{\"id\": 7, \"prompt\": \"a\"}\n\"Once upon a time there was a "
        "caf\\u00e9\"\n\n\"\"\n\"a\"\n");
  for (const std::vector<std::string>& more : {std::vector<std::string>{"--temperature=0"},
                                               {"--temperature=1.5", "--seed=3"},
                                               {"--chat", "--system=Be brief.", "--temperature=1"}}) {
    const auto run = [&](std::vector<std::string> args) {
      args.insert(args.end(), more.begin(), more.end());
      args.insert(args.begin(), {"generate", "model", "--max-new-tokens=20"});
      const Outcome outcome = run_mixtune(args, work_.path());
      EXPECT_EQ(outcome.code, 0) << outcome.err;
      return outcome.out;
    };
    const std::vector<std::string> lines = lines_of(run({"--prompts=prompts.jsonl", "--batch=3"}));
    ASSERT_EQ(lines.size(), prompts.size());
    for (size_t i = 0; i < lines.size(); ++i) {
      const nlohmann::json line = nlohmann::json::parse(lines[i]);
      EXPECT_EQ(line["prompt"], prompts[i]);
      EXPECT_EQ(line["text"].get<std::string>() + "\n", run({"--prompt", prompts[i]})) << i;
      EXPECT_LE(line["tokens"].size(), 20u);
      EXPECT_GE(line["tokens"].size(), 1u);
    }
    EXPECT_EQ(lines_of(run({"--prompts=prompts.jsonl", "--batch=100"})), lines);
  }
}

// The tokens are those of --ids.
TEST_F(Generate, PromptsTokensAreThoseOfIds) {
  write(path("prompts.jsonl"), "\"\"\n");
  const Outcome text = generate("--prompts=prompts.jsonl"), ids = generate("--ids=1");
  const nlohmann::json line = nlohmann::json::parse(text.out);
  std::string tokens;
  for (const int id : line["tokens"]) tokens += (tokens.empty() ? "" : " ") + std::to_string(id);
  EXPECT_EQ(tokens + "\n", ids.out);
}

TEST_F(Generate, AConversationIsALineATurn) {
  const std::string command = "\"$0\" generate model --chat --max-new-tokens 8";
  const auto talk = [&](const std::string& turns) {
    return run_shell("printf '" + turns + "' | " + command, work_.path());
  };
  const Outcome first = talk("Define: otter\\n"), both = talk("Define: otter\\n \\nWhy?\\r\\n");
  EXPECT_EQ(first.code, 0) << first.err;
  EXPECT_EQ(both.code, 0) << both.err;
  EXPECT_EQ(
      first.out,
      run_mixtune({"generate", "model", "--chat", "--prompt=Define: otter", "--max-new-tokens=8"}, work_.path()).out);
  EXPECT_TRUE(both.out.starts_with(first.out)) << both.out;
  EXPECT_EQ(lines_of(both.out).size(), 2u);
  EXPECT_EQ(talk("").out, "");

  const Outcome bad = talk("a\\nb\\377\\n");
  EXPECT_EQ(bad.code, 2);
  EXPECT_THAT(bad.err, HasSubstr("standard input:2: is not text in UTF-8"));
  const Outcome lengthy = talk(std::string(400, 'x') + "\\n");
  EXPECT_EQ(lengthy.code, 2);
  EXPECT_THAT(lengthy.err, HasSubstr("standard input:1: its "));

  const auto talk_within = [&](int tokens) {
    return run_shell(fmt::format("printf 'Define: otter\\n' | {} --max-length {}", command, tokens), work_.path());
  };
  EXPECT_EQ(talk_within(60).out, first.out);
  EXPECT_EQ(talk_within(4).code, 2);
  EXPECT_THAT(talk_within(4).err,
              HasSubstr("leave no room in a conversation of 4; begin another, or raise --max-length"));
  EXPECT_THAT(run_mixtune({"generate", "model", "--ids=1", "--max-length=60"}, work_.path()).err,
              HasSubstr("--max-length: has no effect outside a conversation"));
}

TEST_F(Generate, AGenerationConfigThatIsNotSoundIsNamed) {
  for (const char* text : {R"({"eos_token_id": 4096})", R"({"eos_token_id": [2, -1]})", R"({"eos_token_id": "2"})",
                           R"({"eos_token_id": [[2]]})", R"({"eos_token_id": 2)", "[2]"}) {
    write(path("model/generation_config.json"), text);
    const Outcome outcome = generate("--ids=1");
    EXPECT_EQ(outcome.code, 2) << text;
    EXPECT_THAT(outcome.err, HasSubstr("model/generation_config.json: ")) << text;
  }
}

}  // namespace
}  // namespace mixtune
