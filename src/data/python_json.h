// JSON as Python's json module writes it, which is how mistral-common puts tools, calls and results into a prompt.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mixtune {

// json.dumps(json.loads(text), ensure_ascii=False): one space after ',' and ':', keys in the text's order (a repeated
// key keeps its first place and its last value), integers of any size, floats as repr writes them, NaN and Infinity.
// Nothing where json.loads would raise, where it nests deeper than 200, or for half of a surrogate pair, which no
// tokeniser takes.
std::optional<std::string> dump_as_python(std::string_view text);

// json.dumps of a string, with ensure_ascii=False.
std::string quote_as_python(std::string_view text);

}  // namespace mixtune
