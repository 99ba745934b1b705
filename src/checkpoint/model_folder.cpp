#include "checkpoint/model_folder.h"

#include "base/contained.h"

namespace mixtune {

ModelFolder::ModelFolder(const std::string& path)
    : weights_(path), config_json_(read_config_json(path)), side_files_(read_side_files(path, SideFiles::kAll)) {
  report_left_out(path);
}

SaveOptions ModelFolder::save_options(const std::string& out_folder) const {
  return {.out_folder = out_folder, .config_json = config_json_, .side_files = side_files_, .source = &weights_};
}

}  // namespace mixtune
