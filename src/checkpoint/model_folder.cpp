#include "checkpoint/model_folder.h"

#include <algorithm>
#include <utility>

#include "base/contained.h"
#include "checkpoint/edit_config.h"

namespace mixtune {

ModelFolder::ModelFolder(const std::string& path)
    : weights_(path), config_json_(read_config_json(path)), side_files_(read_side_files(path, SideFiles::kAll)) {
  report_left_out(path);
}

void ModelFolder::set_vocab_size(int64_t vocab_size) {
  config_json_ = with_vocab_size(std::move(config_json_), vocab_size);
}

void ModelFolder::set_tokenizer(const std::string& folder) {
  std::erase_if(side_files_, [](const SideFile& file) { return is_side_file(file.name, SideFiles::kTokenizer); });
  for (SideFile& file : read_side_files(folder, SideFiles::kTokenizer)) side_files_.push_back(std::move(file));
  std::ranges::sort(side_files_, {}, &SideFile::name);
}

SaveOptions ModelFolder::save_options(const std::string& out_folder) const {
  return {.out_folder = out_folder, .config_json = config_json_, .side_files = side_files_, .source = &weights_};
}

}  // namespace mixtune
