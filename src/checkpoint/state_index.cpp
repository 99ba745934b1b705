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

constexpr std::array kKindNames = {"weight", "exp_avg", "exp_avg_sq"};

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

const char* name_of(StateKind kind) {
  return kKindNames[static_cast<size_t>(kind)];
}

bool StateIndex::is_in(const std::string& checkpoint) {
  std::error_code error;
  return std::filesystem::is_regular_file(fmt::format("{}/{}/{}", checkpoint, kStateFolder, kStateIndexFile), error);
}

StateIndex::StateIndex(const std::string& checkpoint, const char* mend)
    : folder_(path_within(checkpoint, kStateFolder, mend)),
      where_(printable_path(folder_ + "/" + kStateIndexFile)),
      mend_(mend) {
  constexpr size_t kMaxIndex = size_t{256} << 20;
  const std::string path = path_within(folder_, kStateIndexFile, mend);
  const nlohmann::json index = parse_json_object(read_small_file(path, kMaxIndex, mend), where_, mend, 4);
  try {
    for (const nlohmann::json& piece : index.at("pieces")) add(piece);
    for (const nlohmann::json& name : index.at("weights")) finer_.insert(name.get<std::string>());
  } catch (const nlohmann::json::exception&) {
    throw UserError(where_, "is not an index of a training state", mend);
  }
}

template <class Json>
void StateIndex::add(const Json& piece) {
  const auto name = piece.at("kind").template get<std::string>();
  const auto kind = std::ranges::find(kKindNames, name) - kKindNames.begin();
  if (kind == std::ssize(kKindNames))
    throw UserError(where_, fmt::format("has a kind '{}' that this version does not know", printable(name)),
                    "use the version of mixtune that wrote it");
  const Key key = {piece.at("tensor").template get<std::string>(), static_cast<StateKind>(kind)};
  const SafetensorsFile& file = open(piece.at("file").template get<std::string>());
  const StoredTensor* stored = file.find(piece.at("entry").template get<std::string>());
  const std::optional<BoxRange> range = parse_range(piece);
  const bool fits =
      range && stored && stored->dtype && is_weight_dtype(*stored->dtype) && stored->shape == Shape{range->count};
  if (!fits) fail(key, "is not as its file has it");
  pieces_[key].push_back({&file, stored, *range});
}

std::vector<StateRun> StateIndex::runs(const Key& key, const BoxRange& wanted) const {
  const auto fail_whole = [&] {
    fail(key, "is not there whole, each of its elements once");
  };
  std::vector<StateRun> runs;
  int64_t covered = 0;
  const auto pieces = pieces_.find(key);
  if (pieces == pieces_.end()) fail_whole();
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

void StateIndex::check_known(const std::set<Key>& known) const {
  for (const auto& [key, pieces] : pieces_)
    if (!known.contains(key)) fail(key, "has no place in the model");
}

void StateIndex::fail(const Key& key, std::string_view what) const {
  throw UserError(where_, fmt::format("{} of '{}' {}", name_of(key.second), printable(key.first), what), mend_);
}

const SafetensorsFile& StateIndex::open(const std::string& name) {
  if (const auto found = files_.find(name); found != files_.end()) return found->second;
  if (name.find('/') != name.npos || name.find('\0') != name.npos || !name.ends_with(".safetensors"))
    throw UserError(where_, fmt::format("names a file '{}' outside its folder", printable(name)), mend_);
  return files_.try_emplace(name, path_within(folder_, name, mend_)).first->second;
}

}  // namespace mixtune
