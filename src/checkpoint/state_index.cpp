#include "checkpoint/state_index.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "base/contained.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_number.h"
#include "checkpoint/convert.h"
#include "checkpoint/training_state.h"

namespace mixtune {

namespace {

constexpr const char* kStateIndexFile = "index.json";
constexpr const char* kUseOther = "use another checkpoint";

std::vector<int64_t> whole_numbers(const nlohmann::json& list) {
  std::vector<int64_t> values;
  for (const nlohmann::json& value : list) values.push_back(whole_number(value));
  return values;
}

// None where the numbers are no range of a box.
std::optional<BoxRange> parse_range(const nlohmann::json& piece) {
  const std::vector<int64_t> shape = whole_numbers(piece.at("shape")), begin = whole_numbers(piece.at("begin")),
                             size = whole_numbers(piece.at("size"));
  const size_t rank = shape.size();
  if (rank < 1 || rank > Shape::kMaxRank || begin.size() != rank || size.size() != rank) return {};
  constexpr int64_t kMost = int64_t{1} << 50;  // elements: no product of what is checked overflows
  int64_t elements = 1;
  for (size_t d = 0; d < rank; ++d) {
    if (shape[d] < 1 || shape[d] > kMost / elements || begin[d] < 0 || size[d] < 1 || begin[d] > shape[d] - size[d])
      return {};
    elements *= shape[d];
  }
  Box box(Shape(shape.data(), static_cast<int>(rank)));
  for (size_t d = 0; d < rank; ++d) box = box.cut(static_cast<int>(d), begin[d], size[d]);
  const int64_t first = whole_number(piece.at("first")), count = whole_number(piece.at("count"));
  if (first < 0 || count < 1 || count > box.elements() || first > box.elements() - count) return {};
  return BoxRange{box, first, count};
}

}  // namespace

bool StateIndex::is_in(const std::string& checkpoint) {
  std::error_code error;
  return std::filesystem::is_regular_file(fmt::format("{}/{}/{}", checkpoint, kStateFolder, kStateIndexFile), error);
}

StateIndex::StateIndex(const std::string& checkpoint)
    : folder_(path_within(checkpoint, kStateFolder, kUseOther)),
      where_(printable_path(folder_ + "/" + kStateIndexFile)) {
  constexpr size_t kMaxIndex = size_t{256} << 20;
  const std::string path = path_within(folder_, kStateIndexFile, kUseOther);
  const nlohmann::json index = parse_json_object(read_small_file(path, kMaxIndex, kUseOther), where_, kUseOther, 4);
  try {
    for (const nlohmann::json& name : index.at("weights")) finer_.insert(name.get<std::string>());
    for (const nlohmann::json& piece : index.at("pieces")) {
      if (piece.at("kind").get<std::string>() != "weight") continue;
      const auto tensor = piece.at("tensor").get<std::string>();
      const SafetensorsFile& file = open(piece.at("file").get<std::string>());
      const StoredTensor* stored = file.find(piece.at("entry").get<std::string>());
      const std::optional<BoxRange> range = parse_range(piece);
      const bool fits =
          range && stored && stored->dtype && is_weight_dtype(*stored->dtype) && stored->shape == Shape{range->count};
      if (!fits) fail(tensor, "a piece", "is not as its file has it");
      weights_[tensor].push_back({&file, stored, *range});
    }
  } catch (const nlohmann::json::exception&) {
    throw UserError(where_, "is not an index of a training state", kUseOther);
  }
}

std::vector<StateRun> StateIndex::weight_runs(const std::string& tensor, const BoxRange& wanted) const {
  const auto fail_whole = [&] {
    fail(tensor, "the weight", "is not there whole, each of its elements once");
  };
  std::vector<StateRun> runs;
  int64_t covered = 0;
  const auto pieces = weights_.find(tensor);
  if (pieces == weights_.end()) fail_whole();
  for (const auto& [file, stored, range] : pieces->second) {
    if (range.box.whole() != wanted.box.whole() || covered > wanted.count) fail_whole();
    for (const SharedRun& run : shared_runs(range, wanted)) {
      const uint64_t begin = stored->begin + (run.from - range.first) * dtype_size(*stored->dtype);
      runs.push_back({file, begin, *stored->dtype, run.to, run.count});
      covered += run.count;
    }
  }
  std::ranges::sort(runs, {}, &StateRun::to);
  int64_t end = wanted.first;
  for (const StateRun& run : runs) {
    if (run.to != end) fail_whole();
    end = run.to + run.count;
  }
  if (end != wanted.first + wanted.count) fail_whole();
  return runs;
}

void StateIndex::fail(const std::string& tensor, std::string_view kind, std::string_view what) const {
  throw UserError(where_, fmt::format("{} of '{}' {}", kind, printable(tensor), what), kUseOther);
}

const SafetensorsFile& StateIndex::open(const std::string& name) {
  if (const auto found = files_.find(name); found != files_.end()) return found->second;
  if (name.find('/') != name.npos || name.find('\0') != name.npos || !name.ends_with(".safetensors"))
    throw UserError(where_, fmt::format("names a file '{}' outside its folder", printable(name)), kUseOther);
  return files_.try_emplace(name, path_within(folder_, name, kUseOther)).first->second;
}

}  // namespace mixtune
