// What a model folder holds besides its weights and config.json, and what of it goes into a checkpoint.
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
  kTokenizer,  // what a tokeniser and its chat template are made of
  kAll,        // also generation_config.json, and what the licence asks to go along: README, LICENSE, NOTICE, ...
};

// By its name. Anything else may be the user's own, or be run by who loads the checkpoint (*.py), and stays behind; so
// does params.json, with which vLLM would look for weights in Mistral's own format.
bool is_side_file(std::string_view name, SideFiles which);

// Names of the side files of `folder`, sorted: regular files, and links to such.
std::vector<std::string> side_file_names(const std::string& folder, SideFiles which);

// The side files of `folder`, sorted by name, read into memory. One of more than 64 MiB, one after 256 MiB of others,
// and a link that leads out of the folder are left out with a warning.
std::vector<SideFile> read_side_files(const std::string& folder, SideFiles which);

// What transformers is to know of a tokeniser whose folder has no tokenizer_config.json.
struct TokenizerNames {
  std::string bos, eos, unk;  // empty: none
  bool legacy = true;         // a space is put before the text that follows a special token
};

// Makes the side files of a tokeniser say this chat template (Jinja): in tokenizer_config.json, where there is none
// yet, it has another template, or its `legacy` would put a space before text that has one; else in
// chat_template.jinja. Nothing, where no tokeniser is among them.
void set_chat_template(std::vector<SideFile>& files, const std::string& source, const TokenizerNames& names);

// Says in one line which files of a model's folder a checkpoint does not get, where there are any besides weights.
void report_left_out(const std::string& folder);

}  // namespace mixtune
