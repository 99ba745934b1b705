// Runs every command that README.md, a page of docs/ or a command's --help shows, as it stands but for the changes of
// `runnable`, in a folder that has stand-ins for the files that it names.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "base/test_paths.h"
#include "program.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;

const fs::path kSource = source_path("");
constexpr double kLimit = 100;  // seconds, on a busy machine with sanitizers

// Text in a block of code that cannot be run.
constexpr std::array kNotRun = {
    "mixtune COMMAND",  // the form of all commands
};

// Folders of models in the docs, for which the quickstart's stands in.
constexpr std::array kModels = {"path/to/mixtral", "models/mixtral-tiny", "models/mixtral-8x7b", "out/checkpoint-100",
                                "out/run1/checkpoint-100"};

// The content of `run.yaml` where the page does not give it.
constexpr const char* kConfig =
    "model_name_or_path: models/mixtral-tiny\ntrain_file: data.jsonl\noutput_dir: out/docs\nmax_seq_length: 64\n";

struct Shown {
  std::string page;
  int line = 0;
  std::string command;
  std::map<std::string, std::string> configs;  // of the page's YAML blocks that begin with "# NAME.yaml", by name
};

void PrintTo(const Shown& shown, std::ostream* out) {
  *out << shown.command;
}

// "mixtune ..." in a line of code; "" where the line is no command of mixtune's. A folder or a launcher before it, and
// a comment after it, are left out.
std::string command_of(std::string line) {
  static const std::regex comment("\\s+#\\s.*$"), command("^((\\S*/)?|(srun|torchrun|mpirun)\\s.*\\s)(mixtune\\s.*)$");
  line = std::regex_replace(line, comment, "");
  std::smatch match;
  if (!std::regex_match(line, match, command)) return "";
  const std::string ours = match[4];
  const bool known = std::ranges::any_of(kNotRun, [&](const char* start) { return ours.starts_with(start); });
  return known ? "" : ours + (match[3].matched && ours.find("--nproc") == ours.npos ? " --nproc 8" : "");
}

std::vector<Shown> commands_of_page(const fs::path& path) {
  std::vector<Shown> commands;
  std::map<std::string, std::string> configs;
  std::string name, block;  // of a YAML file
  std::istringstream lines(read(path));
  bool code = false;
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    const int first = ++number;
    if (line.starts_with("```")) {
      code = !code;
      if (!code && !name.empty()) configs[name] = block;
      name = block = "";
      continue;
    }
    if (!code) continue;
    if (std::smatch match; block.empty() && std::regex_search(line, match, std::regex("^# (\\w+\\.yaml)")))
      name = match[1];
    block += line + "\n";
    for (std::string more; line.ends_with('\\') && std::getline(lines, more); ++number)
      line.replace(line.size() - 1, 1, more);
    if (const std::string command = command_of(line); !command.empty())
      commands.push_back({path.stem().string(), first, command, {}});
  }
  for (Shown& shown : commands) shown.configs = configs;
  return commands;
}

std::vector<Shown> commands_of_docs() {
  std::vector<Shown> all = commands_of_page(kSource / "README.md");
  std::vector<fs::path> pages;
  for (const auto& entry : fs::directory_iterator(kSource / "docs")) pages.push_back(entry.path());
  std::ranges::sort(pages);
  for (const fs::path& page : pages) {
    const auto more = commands_of_page(page);
    all.insert(all.end(), more.begin(), more.end());
  }
  return all;
}

void set_flag(std::string& command, const std::string& flag, const std::string& value) {
  command = std::regex_replace(command, std::regex(" --" + flag + "[ =]\\S+"), "") + " --" + flag + " " + value;
}

// The command, changed so that it ends soon, on a machine without a GPU.
std::string runnable(std::string command) {
  if (command.starts_with("mixtune train ")) {
    set_flag(command, "max_steps", "1");
    set_flag(command, "max_seq_length", "64");
    set_flag(command, "precision", "fp32");
    set_flag(command, "device", "cpu");
  }
  if (command.starts_with("mixtune bench ladder ")) {
    set_flag(command, "model-config", "examples/quickstart/model.json");
    set_flag(command, "tokens", "128");
    set_flag(command, "steps", "1");
    set_flag(command, "settle", "0");
  }
  if (command.starts_with("mixtune generate ")) set_flag(command, "max-new-tokens", "4");
  return command;
}

// Whether the command computes in bf16, which is refused without a GPU, after all else about it has been checked.
bool needs_gpu(const std::string& command) {
  return command.find("--precision bf16") != command.npos && !command.starts_with("mixtune estimate ");
}

// The text with the page's tokens as those of the quickstart's tokeniser, which has fewer pieces than Mistral's.
std::string with_quickstarts_ids(std::string text) {
  constexpr std::array<std::array<const char*, 2>, 3> kIds = {
      {{"32000", "4096"}, {"32001", "4097"}, {"32002", "4098"}}};
  for (const auto& [mistrals, quickstarts] : kIds) text = std::regex_replace(text, std::regex(mistrals), quickstarts);
  return text;
}

void make_chatml_tokenizer(const fs::path& folder) {
  const std::string page = read(kSource / "docs/tokenizers.md"), fence = "```json\n";
  const size_t begin = page.find(fence) + fence.size();
  fs::create_directories(folder);
  fs::copy_file(kSource / "examples/quickstart/tokenizer.model", folder / "tokenizer.model");
  write(folder / "tokenizer_config.json", with_quickstarts_ids(page.substr(begin, page.find("```", begin) - begin)));
}

// Writes indexed data (docs/indexed-data.md) of so many sequences that a split has all its parts.
void write_indexed(const std::string& prefix) {
  constexpr int64_t kSequences = 2000, kLength = 20;
  std::string idx("MMIDIDX\0\0", 9), bin;
  const auto put = [](std::string& to, auto value) {
    to.append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  put(idx, int64_t{1});
  put(idx, uint8_t{8});  // u16
  put(idx, kSequences);
  put(idx, kSequences + 1);
  for (int64_t s = 0; s < kSequences; ++s) put(idx, static_cast<int32_t>(kLength));
  for (int64_t s = 0; s < kSequences; ++s) put(idx, 2 * kLength * s);
  for (int64_t s = 0; s <= kSequences; ++s) put(idx, s);
  for (int64_t i = 0; i < kSequences * kLength; ++i) put(bin, static_cast<uint16_t>(3 + i % 200));
  write(prefix + ".idx", idx);
  write(prefix + ".bin", bin);
}

// An adapter of the quickstart's first q_proj, which adds nothing.
void make_adapter(const fs::path& folder) {
  fs::create_directories(folder);
  write(folder / "adapter_config.json", R"({"peft_type": "LORA", "r": 2, "lora_alpha": 4,
    "base_model_name_or_path": "examples/quickstart/pretrained"})");
  const std::string module = "base_model.model.model.layers.0.self_attn.q_proj.lora_";
  const std::string header =
      fmt::format(R"({{"{0}A.weight":{{"dtype":"F32","shape":[2,256],"data_offsets":[0,2048]}},)"
                  R"("{0}B.weight":{{"dtype":"F32","shape":[256,2],"data_offsets":[2048,4096]}}}})",
                  module);
  const uint64_t length = header.size();
  const std::string file(reinterpret_cast<const char*>(&length), sizeof(length));
  write(folder / "adapter_model.safetensors", file + header + std::string(4096, '\0'));
}

void stand_in(const fs::path& work, const std::string& name) {
  const fs::path path = work / name, example = kSource / "examples/quickstart";
  if (fs::symlink_status(path).type() != fs::file_type::not_found || name.starts_with("examples/")) return;
  if (name.ends_with(".jsonl")) {
    fs::create_directories(path.parent_path());
    if (name == "conversations.jsonl")
      return write(path, R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]})"
                         "\n");
    const std::string records = read(example / "validation.jsonl");
    return write(path, records.substr(0, records.rfind('\n', 6000) + 1));
  }
  for (const std::string prefix : {"corpus_text_document", "chats_text_document"})
    if (name.starts_with(prefix)) return write_indexed(work / prefix);
  if (name == "models/chatml") return make_chatml_tokenizer(path);
  if (name.starts_with("adapters/")) return make_adapter(path);
  if (const std::string run = "out/adapter"; name == run || name.starts_with(run + "/")) {
    make_adapter(work / run / "checkpoint-20");
    return write(work / run / "latest", "checkpoint-20\n");
  }
  if (name == "model.json") return fs::create_symlink(example / name, path);
  if (name == "model-00001-of-00019.safetensors")
    return fs::create_symlink(example / "pretrained/model.safetensors", path);
  for (const std::string model : kModels) {
    if (name != model && !name.starts_with(model + "/")) continue;
    fs::create_directories((work / model).parent_path());
    return fs::create_symlink(example / "pretrained", work / model);
  }
}

// Makes the folder of a run that has ended, with a checkpoint of its own: a link that leads out would be refused.
void make_run(const fs::path& folder) {
  fs::create_directories(folder);
  fs::copy(kSource / "examples/quickstart/pretrained", folder / "checkpoint-100", fs::copy_options::recursive);
  write(folder / "checkpoint-100/manifest.json", R"({"format": 1, "step": 100, "files": {}})");
  write(folder / "latest", "checkpoint-100\n");
  write(folder / "metrics.jsonl", R"({"step": 100, "total_steps": 100, "loss": 2.5, "lm_loss": 2.5})"
                                  "\n");
}

// Makes what `shown` reads, and nothing that it writes.
void prepare(const fs::path& work, const Shown& shown) {
  fs::create_symlink(kSource / "examples", work / "examples");
  fs::create_symlink(kSource / "tests", work / "tests");
  std::string text =
      std::regex_replace(shown.command, std::regex("--(output|out|json|output_dir|write-good)[ =]\\S+"), "");
  if (std::regex_search(text, std::regex("\\sout/run1(\\s|$)"))) make_run(work / "out/run1");
  for (const char* run : {"out", "out/run2"})
    if (std::regex_search(text, std::regex(fmt::format("\\s{}(\\s|$)", run)))) make_run(work / run);
  if (std::smatch match; std::regex_search(text, match, std::regex("\\s(\\w+\\.yaml)"))) {
    const auto config = shown.configs.find(match[1]);
    write(work / match[1].str(), config == shown.configs.end() ? kConfig : config->second);
    text += read(work / match[1].str());
  }
  const std::regex words("[A-Za-z0-9_./-]+");
  for (std::sregex_iterator word(text.begin(), text.end(), words), end; word != end; ++word)
    stand_in(work, word->str());
}

void expect_runs(const Shown& shown) {
  const TempFolder work;
  prepare(work.path(), shown);
  const std::string command = runnable(shown.command);
  const Outcome outcome =
      run_shell("export CUDA_VISIBLE_DEVICES=; mixtune() { \"$0\" \"$@\"; }; " + command, work.path(), kLimit);
  const std::string all = fmt::format("{}:{}: {}\n{}", shown.page, shown.line, command, outcome.err);
  if (needs_gpu(command)) {
    EXPECT_EQ(outcome.code, 2) << all;
    EXPECT_NE(outcome.err.find("needs a GPU"), std::string::npos) << all;
  } else {
    EXPECT_EQ(outcome.code, 0) << all;
  }
}

class DocsCommand : public testing::TestWithParam<Shown> {};

TEST_P(DocsCommand, Runs) {
  expect_runs(GetParam());
}

std::string name_of_command(const testing::TestParamInfo<Shown>& info) {
  return fmt::format("{}_{}", std::regex_replace(info.param.page, std::regex("\\W"), "_"), info.param.line);
}

INSTANTIATE_TEST_SUITE_P(Docs, DocsCommand, testing::ValuesIn(commands_of_docs()), name_of_command);

TEST(DocsCommands, AddedTokensAreTrainedSavedAndAnswered) {
  const std::vector<Shown> shown = commands_of_page(kSource / "docs/tokenizers.md");
  const auto train = std::ranges::find_if(
      shown, [](const Shown& s) { return s.configs.contains("run.yaml") && s.command == "mixtune train run.yaml"; });
  ASSERT_NE(train, shown.end());
  const TempFolder work;
  prepare(work.path(), *train);
  const auto run = [&](std::vector<std::string> args) {
    Outcome outcome = run_mixtune(std::move(args), work.path(), kLimit);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome.err;
  };
  const std::string page = read(kSource / "docs/tokenizers.md");
  std::smatch stated;
  ASSERT_TRUE(std::regex_search(page, stated, std::regex("\nmixtune: vocabulary: .*\n")));
  const std::string line = with_quickstarts_ids(stated.str().substr(1));
  const std::vector<std::string> few = {"train", "run.yaml", "--max_steps=2", "--max_seq_length=64"};
  const std::string said = run(few);
  EXPECT_NE(said.find(line), said.npos) << said;
  std::vector<std::string> on = few;
  on.insert(on.end(), {"--model_name_or_path=out/chatml", "--output_dir=out/on"});
  const std::string goes_on = run(on);
  EXPECT_NE(goes_on.find("nothing to resize"), goes_on.npos) << goes_on;
  const std::string chat = run({"generate", "out/on", "--chat", "--prompt=Hi", "--max-new-tokens=4"});
  EXPECT_NE(chat.find("chat template: chatml"), chat.npos) << chat;
}

TEST(DocsCommands, AreFoundOnThePages) {
  const std::vector<Shown> all = commands_of_docs();
  for (const char* page : {"README", "cli", "configuration", "parallel"})
    EXPECT_TRUE(std::ranges::any_of(all, [&](const Shown& shown) { return shown.page == page; })) << page;
}

TEST(DocsCommands, AreToldFromOtherLines) {
  EXPECT_EQ(command_of("build/mixtune doctor     # is it well"), "mixtune doctor");
  EXPECT_EQ(command_of("mixtune: error: x"), "");
  EXPECT_EQ(command_of("cmake --build mixtune"), "");
  EXPECT_EQ(command_of("srun --ntasks 8 mixtune train run.yaml"), "mixtune train run.yaml --nproc 8");
}

// The names that follow "Subcommands:" in the help of `command`.
std::vector<std::string> subcommands(const std::string& command) {
  std::istringstream lines(run_shell("\"$0\" " + command + " --help", kSource).out);
  std::vector<std::string> names;
  bool here = false;
  for (std::string line, name; std::getline(lines, line);) {
    if (here && line.starts_with("  ") && line[2] != ' ' && std::istringstream(line) >> name) names.push_back(name);
    if (!line.starts_with(" ")) here = line == "Subcommands:";
  }
  return names;
}

class HelpOf : public testing::TestWithParam<const char*> {};

TEST_P(HelpOf, EndsWithExamplesThatRun) {
  const std::string command = GetParam();
  std::istringstream lines(run_shell("\"$0\" " + command + " --help", kSource).out);
  bool here = false;
  int count = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line == "Examples:") here = true;
    if (!here || !line.starts_with("  mixtune ")) continue;
    EXPECT_TRUE(line.starts_with("  mixtune " + command)) << line;
    expect_runs({"--help of " + command, ++count, line.substr(2), {}});
  }
  EXPECT_GE(count, 2);
}

constexpr std::array kCommands = {"train",      "evaluate",     "generate",      "preprocess", "init",      "export",
                                  "merge",      "inspect",      "diff",          "report",     "estimate",  "bench",
                                  "bench step", "bench ladder", "bench kernels", "bench save", "bench load"};

std::string name_of_help(const testing::TestParamInfo<const char*>& info) {
  return std::regex_replace(info.param, std::regex(" "), "_");
}

INSTANTIATE_TEST_SUITE_P(Docs, HelpOf, testing::ValuesIn(kCommands), name_of_help);

TEST(Help, NoCommandIsWithoutATest) {
  std::vector<std::string> all = subcommands("");
  for (const std::string& name : subcommands("bench")) all.push_back("bench " + name);
  EXPECT_GT(all.size(), kCommands.size());
  for (const std::string& name : all)
    EXPECT_TRUE(std::ranges::find(kCommands, name) != kCommands.end() || name == "doctor" || name == "version") << name;
}

}  // namespace
}  // namespace mixtune
