// read_prompts: the prompts of a file.
#pragma once

#include <string>
#include <vector>

namespace mixtune {

struct Prompt {
  std::string text;
  std::string where;  // "prompts.jsonl:3"
};

// Reads a data file (RecordReader) whose lines are JSON strings, or objects with a string `prompt`, of which nothing
// else is read. Throws UserError for any other, and where there is none.
std::vector<Prompt> read_prompts(const std::string& path);

}  // namespace mixtune
