// The value of --megatron_args: a list of Megatron-LM's arguments, or a YAML file of them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mixtune {

struct MegatronArgument {
  std::string name;   // with underscores: "num_experts"
  std::string value;  // words are parted by one space; "true" where there is none
  std::string shown;  // as it was given: "--num-experts 8", "num_experts: 8"
  std::string where;  // for messages: "run.sh:3: --num-experts"
};

// `given` is the list itself, where it begins with a hyphen, or the path of a file. A file whose first character, but
// for white space and lines of comment, is a hyphen holds a list, of words as a shell takes them: quotes, a backslash
// before a character or at a line's end, comments; but what begins with a quote is a value, never a flag. Any other,
// and one whose first line is '---', is YAML: a mapping of names, with or without hyphens, to values or lists of them,
// or to such mappings, whose names say nothing. What is null is left out. Throws UserError for anything else, for a
// name that is given twice, and where there is none.
std::vector<MegatronArgument> read_megatron_arguments(const std::string& given);

// The same of the text of a file, which `where` names in messages.
std::vector<MegatronArgument> parse_megatron_arguments(std::string_view text, const std::string& where);

}  // namespace mixtune
