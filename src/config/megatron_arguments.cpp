#include "config/megatron_arguments.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "config/yaml.h"

namespace mixtune {

namespace {

constexpr size_t kMaxArgumentsFile = 1 << 20;
constexpr std::string_view kGiveList = "give the arguments alone, '--num-experts 8 ...', or a YAML file of them";

// "--num-experts" and "num_experts" are "num_experts".
std::string name_of(std::string_view text) {
  std::string name(text.substr(std::min(text.find_first_not_of('-'), text.size())));
  std::ranges::replace(name, '-', '_');
  return name;
}

struct Word {
  std::string text;
  int line = 1;
  bool begins_quoted = false;
};

// A text's words, as a shell parts them. No variable is put in.
class Words {
 public:
  Words(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  std::vector<Word> take() {
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '\'' || c == '"')
        quote(c);
      else if (c == '\\')
        escape();
      else if (c == '#' && !word_)
        at_ = std::min(text_.find('\n', at_), text_.size()) - 1;
      else if (c == ' ' || c == '\t' || c == '\r' || c == '\n')
        end(c);
      else
        add(c);
    }
    end(' ');
    return std::move(words_);
  }

 private:
  std::string place() const { return fmt::format("{}:{}", where_, line_); }

  // `quoted`: what comes is quoted; where the word begins with it, it is no flag.
  Word& word(bool quoted = false) {
    if (!word_) word_ = Word{.text = "", .line = line_, .begins_quoted = quoted};
    return *word_;
  }

  void add(char c) {
    if (c == '$' || c == '`')
      throw UserError(place(), fmt::format("'{}' is for a shell, and none reads this", c), "write the value out");
    if (static_cast<unsigned char>(c) < 0x20)
      throw UserError(place(), "holds a control character", "save the file as plain text");
    word().text += c;
  }

  void quote(char mark) {
    const size_t close = text_.find(mark, at_ + 1);
    if (close == text_.npos) throw UserError(place(), fmt::format("the quote {} is not closed", mark), "close it");
    word(true);
    for (++at_; at_ < close; ++at_) {
      if (text_[at_] == '\n') ++line_;
      mark == '\'' ? static_cast<void>(word().text += text_[at_]) : add(text_[at_]);
    }
  }

  // At a line's end the line goes on.
  void escape() {
    if (++at_ == text_.size()) return;
    if (text_[at_] == '\n')
      end('\n');
    else if (text_[at_] != '\r')
      word(true).text += text_[at_];
  }

  void end(char c) {
    if (word_) words_.push_back(std::move(*word_));
    word_.reset();
    if (c == '\n') ++line_;
  }

  std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
  int line_ = 1;
  std::optional<Word> word_;
  std::vector<Word> words_;
};

// No negative number, and nothing that begins with a quote or a backslash.
bool is_flag(const Word& word) {
  const std::string& text = word.text;
  const size_t name = text.find_first_not_of('-');
  return !word.begins_quoted && text[0] == '-' && name != text.npos && text[name] != '.' &&
         (text[name] < '0' || text[name] > '9');
}

std::vector<MegatronArgument> list_of(std::string_view text, const std::string& where, bool has_lines) {
  std::vector<MegatronArgument> arguments;
  const std::vector<Word> words = Words(text, where).take();
  for (size_t i = 0; i < words.size();) {
    const Word& word = words[i++];
    const std::string place = has_lines ? fmt::format("{}:{}", where, word.line) : where;
    if (!is_flag(word)) throw UserError(place, fmt::format("'{}' is no flag", printable(word.text)), kGiveList);
    const size_t equals = std::min(word.text.find('='), word.text.size());
    const std::string flag = word.text.substr(0, equals);
    std::vector<std::string> values;
    if (equals < word.text.size()) values.push_back(word.text.substr(equals + 1));
    while (i < words.size() && !is_flag(words[i])) values.push_back(words[i++].text);
    const std::string value = fmt::format("{}", fmt::join(values, " "));
    arguments.push_back({.name = name_of(flag),
                         .value = values.empty() ? "true" : value,
                         .shown = printable(values.empty() ? flag : flag + " " + value, 200),
                         .where = fmt::format("{}: {}", place, printable(flag))});
  }
  return arguments;
}

void add_entry(const YamlEntry& entry, const std::string& where, std::vector<MegatronArgument>& arguments) {
  const std::string value = fmt::format("{}", fmt::join(entry.values, " "));
  if (!entry.is_list && (value == "null" || value == "~")) return;
  arguments.push_back({.name = name_of(entry.key),
                       .value = value,
                       .shown = printable(fmt::format("{}: {}", entry.key, value), 200),
                       .where = fmt::format("{}:{}: {}", where, entry.line, printable(entry.key))});
}

std::vector<MegatronArgument> yaml_of(std::string_view text, const std::string& where) {
  std::vector<MegatronArgument> arguments;
  for (const YamlEntry& entry : parse_flat_yaml(text, where)) {
    if (entry.left_out_line > 0 || (entry.is_list && !entry.mappings.empty()))
      throw UserError(
          fmt::format("{}:{}: {}", where, std::max(entry.left_out_line, entry.nested_line), printable(entry.key)),
          "is nested deeper than a section of arguments", "write 'name: value' below one heading at most");
    if (entry.mappings.empty()) {
      add_entry(entry, where, arguments);
      continue;
    }
    for (const YamlEntry& inner : entry.mappings.front().entries) add_entry(inner, where, arguments);
  }
  return arguments;
}

void check_names(const std::vector<MegatronArgument>& arguments, const std::string& where) {
  if (arguments.empty()) throw UserError(where, "has no arguments", std::string(kGiveList));
  std::map<std::string_view, std::string_view> places;
  for (const MegatronArgument& argument : arguments)
    if (const auto [first, is_new] = places.emplace(argument.name, argument.where); !is_new)
      throw UserError(argument.where, fmt::format("is given twice: {}", first->second), "give it once");
}

// Behind white space and comments. A line '---' begins a document of YAML.
bool begins_with_hyphen(std::string_view text) {
  for (size_t at = 0; (at = text.find_first_not_of(" \t\r\n", at)) != text.npos;) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    if (line[0] != '#') return line[0] == '-' && line.substr(0, line.find_last_not_of(" \t\r") + 1) != "---";
    at = end;
  }
  return false;
}

}  // namespace

std::vector<MegatronArgument> parse_megatron_arguments(std::string_view text, const std::string& where) {
  std::vector<MegatronArgument> arguments =
      begins_with_hyphen(text) ? list_of(text, where, true) : yaml_of(text, where);
  check_names(arguments, where);
  return arguments;
}

std::vector<MegatronArgument> read_megatron_arguments(const std::string& given) {
  if (!begins_with_hyphen(given))
    return parse_megatron_arguments(read_small_file(given, kMaxArgumentsFile, kGiveList), printable(given, 200));
  std::vector<MegatronArgument> arguments = list_of(given, "--megatron_args", false);
  check_names(arguments, "--megatron_args");
  return arguments;
}

}  // namespace mixtune
