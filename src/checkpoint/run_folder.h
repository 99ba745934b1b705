// A run's folder taken as a model: one of its checkpoints.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mixtune {

// In an output folder, of one line: the name of the newest checkpoint, and of the best where the run was asked for it.
constexpr const char *kLatestFile = "latest", *kBestFile = "best";

std::string checkpoint_name(int64_t step);  // "checkpoint-100"
// The step of a name; none where it is not written exactly so.
std::optional<int64_t> checkpoint_step(std::string_view name);
// Steps of the checkpoints in a folder, from the oldest on.
std::vector<int64_t> checkpoint_steps(const std::string& folder);

// The step of the checkpoint that `file` names, one of these two; none where it names none.
std::optional<int64_t> named_step(const std::string& folder, const char* file);

// The folder of the model that `path` means. A run's folder, which has a `latest`, means the checkpoint that its `best`
// names, or with none its `latest` (a line of log says so, if `say`), unless it is a model's too; else it is `path`.
// Nothing in these files is trusted: throws UserError unless it is the name of a checkpoint that is there.
std::string model_folder(const std::string& path, bool say = true);
// The same, but for `best`: to go on with training.
std::string newest_checkpoint(const std::string& path, bool say = true);

}  // namespace mixtune
