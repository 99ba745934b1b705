// Side files: what a model folder holds besides its weights and config.json, and what of it goes into a checkpoint.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mixtune {

struct SideFile {
  std::string name;  // without a folder
  std::string content;
};

enum class SideFiles {
  kTokenizer,  // a tokeniser and its chat template
  kAll,        // also generation_config.json, and what the licence asks to go along: README, LICENSE, NOTICE, ...
};

// Whether a file is one, by its name. Any other may be the user's own, or be run by a program that loads the checkpoint
// (*.py); and with params.json vLLM would look for weights in Mistral's own format. These stay behind.
bool is_side_file(std::string_view name, SideFiles which);

// The names of the side files of `folder`, sorted: regular files, and links to such.
std::vector<std::string> side_file_names(const std::string& folder, SideFiles which);

// Reads the side files of `folder` into memory, sorted by name. Leaves out, with a warning, a file of more than 64 MiB,
// one after 256 MiB of others, and a link that leads out of the folder.
std::vector<SideFile> read_side_files(const std::string& folder, SideFiles which);

// What transformers must know of a tokeniser whose folder has no tokenizer_config.json.
struct TokenizerNames {
  std::string bos, eos, unk;  // empty: none
  bool legacy = true;         // puts a space before the text that follows a special token
};

// Puts this chat template (Jinja) into the side files of a tokeniser: into tokenizer_config.json, where there is none
// yet, it has another template, or its `legacy` would put a space before text that has one; else into
// chat_template.jinja. Does nothing where no tokeniser is among them.
void set_chat_template(std::vector<SideFile>& files, const std::string& source, const TokenizerNames& names);

// Logs in one line which files of a model's folder a checkpoint does not get, besides weights.
void report_left_out(const std::string& folder);

}  // namespace mixtune
