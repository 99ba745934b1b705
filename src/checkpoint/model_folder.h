// ModelFolder: the folder that a model comes from, read once.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/hf_folder.h"
#include "checkpoint/save.h"
#include "checkpoint/side_files.h"
#include "config/router_scores.h"

namespace mixtune {

// Its configuration, side files and headers of weights are in memory once it is open. A later change in the folder
// alters no checkpoint and ends no run, unless weights are written to before they are loaded.
class ModelFolder {
 public:
  // Throws UserError where something is wrong with the folder. Logs what of it a checkpoint will not have.
  explicit ModelFolder(const std::string& path);

  const HfFolder& weights() const { return weights_; }
  const std::string& config_json() const { return config_json_; }

  // Gives checkpoints this vocab_size.
  void set_vocab_size(int64_t vocab_size);
  // Gives checkpoints these scores of the router, of so many experts a token.
  void set_router(const RouterScores& scores, int64_t experts_per_token);
  // Gives checkpoints this expert bias (edit_config.h).
  void set_expert_bias(std::span<const float> bias, int64_t experts);
  // Gives checkpoints the files of the tokeniser `path` in place of this folder's own. A file stands for tokenizer.json
  // and tokenizer.model both, under the name of its kind.
  void set_tokenizer(const std::string& path);
  // Gives checkpoints this chat template (side_files.h).
  void set_chat_template(const std::string& source, const TokenizerNames& names) {
    mixtune::set_chat_template(side_files_, source, names);
  }

  // Options for a checkpoint with this folder's configuration, side files and types.
  SaveOptions save_options(const std::string& out_folder) const;

 private:
  HfFolder weights_;
  std::string config_json_;
  std::vector<SideFile> side_files_;
};

}  // namespace mixtune
