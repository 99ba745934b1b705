// The part of YAML that a config is written in: one mapping of scalars, of lists of scalars, of flat mappings, and of
// lists of these.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mixtune {

struct YamlMapping;

struct YamlEntry {
  std::string key;
  std::vector<std::string> values;    // one, unless it is a list or a mapping; a null reads "null"
  std::vector<YamlMapping> mappings;  // of a list, or the one that the value is; their own entries have none
  bool is_list = false;
  int line = 0;
  int nested_line = 0;    // of the first value that is a mapping, or a list within a list; or 0
  int left_out_line = 0;  // of the first of those whose content is left out, as it is not in `mappings`; or 0
};

struct YamlMapping {
  int line = 0;
  std::vector<YamlEntry> entries;
};

// The entries in the order of the file. Throws UserError naming `where`:line for bad YAML, and for everything else
// beyond that part: a document that is no mapping, deep nesting, anchors, aliases, merge keys, tags, several documents,
// repeated keys, text that is not UTF-8.
std::vector<YamlEntry> parse_flat_yaml(std::string_view text, std::string_view where);

}  // namespace mixtune
