#include "checkpoint/model_folder.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "base/contained.h"
#include "base/file.h"
#include "base/output_file.h"
#include "checkpoint/edit_config.h"

namespace mixtune {

namespace {

constexpr const char *kJson = "tokenizer.json", *kModel = "tokenizer.model";

std::vector<SideFile> tokenizer_files(const std::string& path) {
  if (std::filesystem::is_directory(path)) return read_side_files(path, SideFiles::kTokenizer);
  constexpr size_t kMaxBytes = size_t{64} << 20;
  std::vector<SideFile> files = read_side_files(parent_folder(path), SideFiles::kTokenizer);
  std::erase_if(files, [](const SideFile& file) { return file.name == kJson || file.name == kModel; });
  files.push_back({path.ends_with(".json") ? kJson : kModel, read_small_file(path, kMaxBytes, "name another")});
  return files;
}

}  // namespace

ModelFolder::ModelFolder(const std::string& path)
    : weights_(path),
      config_json_(without_quantisation(read_config_json(path))),
      side_files_(read_side_files(path, SideFiles::kAll)) {
  report_left_out(path);
}

void ModelFolder::set_vocab_size(int64_t vocab_size) {
  config_json_ = with_vocab_size(std::move(config_json_), vocab_size);
}

void ModelFolder::set_router(const RouterScores& scores, int64_t experts_per_token) {
  config_json_ = with_router_scores(with_experts_per_token(std::move(config_json_), experts_per_token), scores);
}

void ModelFolder::set_expert_bias(std::span<const float> bias, int64_t experts) {
  config_json_ = with_expert_bias(std::move(config_json_), bias, experts);
}

void ModelFolder::set_tokenizer(const std::string& path) {
  std::erase_if(side_files_, [](const SideFile& file) { return is_side_file(file.name, SideFiles::kTokenizer); });
  for (SideFile& file : tokenizer_files(path)) side_files_.push_back(std::move(file));
  std::ranges::sort(side_files_, {}, &SideFile::name);
}

SaveOptions ModelFolder::save_options(const std::string& out_folder) const {
  return {.out_folder = out_folder, .config_json = config_json_, .side_files = side_files_, .source = &weights_};
}

}  // namespace mixtune
