// ModelFolder: the folder that a model comes from, read once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/hf_folder.h"
#include "checkpoint/save.h"
#include "checkpoint/side_files.h"

namespace mixtune {

// The configuration, the side files and the headers of the weights are in memory from its opening on: what becomes of
// the folder then changes no checkpoint and ends no run, but for weights that are written to before they are loaded.
class ModelFolder {
 public:
  // Throws UserError for what is wrong with the folder. Says what of it a checkpoint will not have.
  explicit ModelFolder(const std::string& path);

  const HfFolder& weights() const { return weights_; }
  const std::string& config_json() const { return config_json_; }

  // Checkpoints will have this vocab_size.
  void set_vocab_size(int64_t vocab_size);
  // Checkpoints will have the files of the tokeniser `path`, in the place of this folder's own. Where that is a file,
  // it stands for tokenizer.json and tokenizer.model both, under the name of its kind.
  void set_tokenizer(const std::string& path);
  // Checkpoints will say this chat template (side_files.h).
  void set_chat_template(const std::string& source, const TokenizerNames& names) {
    mixtune::set_chat_template(side_files_, source, names);
  }

  // For a checkpoint with this folder's configuration, side files and types.
  SaveOptions save_options(const std::string& out_folder) const;

 private:
  HfFolder weights_;
  std::string config_json_;
  std::vector<SideFile> side_files_;
};

}  // namespace mixtune
