// A run's folder taken as a model: its newest checkpoint.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mixtune {

constexpr const char* kLatestFile = "latest";  // in an output folder: one line, the name of the newest checkpoint

std::string checkpoint_name(int64_t step);  // "checkpoint-100"
// The step of a name; none where it is not written exactly so.
std::optional<int64_t> checkpoint_step(std::string_view name);
// Steps of the checkpoints in a folder, from the oldest on.
std::vector<int64_t> checkpoint_steps(const std::string& folder);

// The folder of the model that `path` means. A run's folder means the checkpoint that its `latest` names (a line of log
// says so, if `say`), unless it is a model's too; else it is `path`. Nothing in `latest` is trusted: throws UserError
// unless it is the name of a checkpoint that is there.
std::string model_folder(const std::string& path, bool say = true);

}  // namespace mixtune
