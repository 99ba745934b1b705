// Where `mixtune generate` stops.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

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
  const Outcome outcome = run_shell(
      "(\"$0\" generate " + source_path("examples/quickstart/pretrained") +
          " --prompt 'Once upon a time' --max-new-tokens 2000; echo \"ended with $?\" >&2) | head -c 3",
      work_.path());
  EXPECT_EQ(outcome.out.size(), 3u);
  EXPECT_THAT(outcome.err, HasSubstr("standard output"));
  EXPECT_THAT(outcome.err, HasSubstr("ended with 1"));
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
