#include "checkpoint/training_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/contained.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_number.h"
#include "checkpoint/convert.h"
#include "checkpoint/counted_part.h"
#include "checkpoint/stream.h"
#include "parallel/ranks.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kStateIndex = "index.json";

enum class StateKind : uint8_t { kWeight, kFirstMoment, kSecondMoment };
constexpr std::array kStateKinds = {StateKind::kWeight, StateKind::kFirstMoment, StateKind::kSecondMoment};
constexpr std::array kKindNames = {"weight", "exp_avg", "exp_avg_sq"};

const char* name_of(StateKind kind) {
  return kKindNames[static_cast<size_t>(kind)];
}

// Whether the checkpoint's own files, written with these options, have every bit of the weight.
bool is_exact(const State& state, const SaveOptions& options, int param, const HfBlock& block) {
  const DType saved = saved_dtype(state, options, param, block), held = state.primary(param).dtype;
  if (saved == DType::kF32 || saved == held) return true;
  return !state.spec(param).trainable && options.source &&
         options.source->locate(block.name, block.stored_shape()).stored->dtype == saved;
}

// What this rank counts of a kind of a parameter's block.
struct StatePart {
  const HfBlock* block;
  StateKind kind;
  CountedPart counted;

  BoxRange range() const { return {block->box, counted.first, counted.to.elements()}; }
};

Tensor held(const State& state, StateKind kind, int param) {
  if (kind == StateKind::kWeight) return state.primary(param);
  return kind == StateKind::kFirstMoment ? state.first_moment(param) : state.second_moment(param);
}

// Calls `visit(param, part)` with all of them that are not empty.
template <class F>
void for_each_part(const State& state, F&& visit) {
  for (int param = 0; param < state.size(); ++param)
    for (const StateKind kind : kStateKinds) {
      const Tensor values = held(state, kind, param);
      if (!values) continue;
      for (const HfBlock& block : state.spec(param).blocks) {
        const StatePart part{&block, kind, counted_between(state, param, values, block, 0, block.elements())};
        if (part.counted.to.elements() > 0) visit(param, part);
      }
    }
}

std::vector<int64_t> list(const Shape& shape) {
  std::vector<int64_t> dims;
  for (int d = 0; d < shape.rank(); ++d) dims.push_back(shape[d]);
  return dims;
}

// "TENSOR.exp_avg", and of a part of it its elements.
std::string entry_name(const StatePart& part) {
  const auto& [box, first, count] = part.range();
  std::string name = fmt::format("{}.{}", part.block->name, name_of(part.kind));
  if (box.shape() != box.whole()) name += fmt::format(" from {}", box.place(0));
  if (count != box.elements()) name += fmt::format(" [{}, {})", first, first + count);
  return name;
}

json describe(const StatePart& part, const std::string& file) {
  const auto& [box, first, count] = part.range();
  std::vector<int64_t> begin;
  for (int d = 0; d < box.whole().rank(); ++d) begin.push_back(box.begin(d));
  return {{"file", file},
          {"entry", entry_name(part)},
          {"tensor", part.block->name},
          {"kind", name_of(part.kind)},
          {"shape", list(box.whole())},
          {"begin", begin},
          {"size", list(box.shape())},
          {"first", first},
          {"count", count}};
}

// Writes the parts one behind the other, on the thread that writes.
class PartsFile {
 public:
  PartsFile(std::string path, std::vector<TensorEntry> entries)
      : path_(std::move(path)), entries_(std::move(entries)) {}

  void write(size_t entry, const Tensor& chunk) {
    check_finite_to_save(chunk, entries_[entry].name);
    if (!writer_) writer_.emplace(path_, entries_);
    writer_->write(entry, done_, bytes_of(chunk));
    done_ += chunk.bytes();
    if (done_ == entries_[entry].bytes()) done_ = 0;
  }
  StoredFile finish() {
    StoredFile stored = writer_->finish();
    writer_.reset();
    return stored;
  }

 private:
  const std::string path_;
  const std::vector<TensorEntry> entries_;
  std::optional<SafetensorsWriter> writer_;  // from the first chunk on
  uint64_t done_ = 0;                        // of the entry that is being written
};

void put_parts(Ctx& ctx, const std::vector<StatePart>& parts, const std::string& name, PendingCheckpoint& pending) {
  if (parts.empty()) return;
  std::vector<TensorEntry> entries;
  for (const StatePart& part : parts)
    entries.push_back({entry_name(part), part.counted.to.dtype, {part.counted.to.elements()}});
  const auto file = std::make_shared<PartsFile>(pending.folder() + "/" + name, std::move(entries));
  WriteBehind& behind = pending.behind();
  for (size_t i = 0; i < parts.size(); ++i)
    behind.put(ctx, parts[i].counted.to, [=](const Tensor& chunk) { file->write(i, chunk); });
  behind.then([=, written = pending.written()] { (*written)[name] = file->finish(); });
}

// A range of a tensor in a file.
struct Piece {
  const SafetensorsFile* file;
  const StoredTensor* stored;
  BoxRange range;
};

// The pieces of a folder, by tensor and kind.
class Pieces {
 public:
  explicit Pieces(const std::string& folder) : folder_(folder), where_(printable_path(folder + "/" + kStateIndex)) {
    constexpr size_t kMaxIndex = size_t{256} << 20;
    const std::string path = path_within(folder, kStateIndex, kResumeOther);
    const json index = parse_json_object(read_small_file(path, kMaxIndex, kResumeOther), where_, kResumeOther, 4);
    try {
      for (const json& piece : index.at("pieces")) add(piece);
      for (const json& name : index.at("weights")) finer_.insert(name.get<std::string>());
    } catch (const json::exception&) {
      throw UserError(where_, "is not an index of a training state", kResumeOther);
    }
  }

  // Those of a tensor, perhaps none. Remembers that it has a place in the model.
  const std::vector<Piece>& of(const std::string& tensor, StateKind kind) {
    used_.emplace(tensor, kind);
    static const std::vector<Piece> none;
    const auto found = pieces_.find({tensor, kind});
    return found == pieces_.end() ? none : found->second;
  }

  // Whether the state must have the weight: the checkpoint's own files have it rounded.
  bool is_finer(const std::string& tensor) const { return finer_.contains(tensor); }

  void check_all_used() const {
    for (const auto& [key, pieces] : pieces_)
      if (!used_.contains(key)) fail(key.first, key.second, "has no place in the model");
  }

  [[noreturn]] void fail(const std::string& tensor, StateKind kind, std::string_view what) const {
    throw UserError(where_, fmt::format("{} of '{}' {}", name_of(kind), printable(tensor), what), kResumeOther);
  }

 private:
  using Key = std::pair<std::string, StateKind>;

  void add(const json& piece) {
    const auto tensor = piece.at("tensor").get<std::string>(), kind_name = piece.at("kind").get<std::string>();
    const auto kind = std::ranges::find(kKindNames, kind_name) - kKindNames.begin();
    if (kind == std::ssize(kKindNames))
      throw UserError(where_, fmt::format("has a kind '{}' that this version does not know", printable(kind_name)),
                      "resume with the version of mixtune that wrote it");
    const SafetensorsFile& file = open(piece.at("file").get<std::string>());
    const StoredTensor* stored = file.find(piece.at("entry").get<std::string>());
    const std::optional<BoxRange> range = range_of(piece);
    const bool fits =
        range && stored && stored->dtype && is_weight_dtype(*stored->dtype) && stored->shape == Shape{range->count};
    if (!fits) fail(tensor, static_cast<StateKind>(kind), "is not as its file has it");
    pieces_[{tensor, static_cast<StateKind>(kind)}].push_back({&file, stored, *range});
  }

  static std::vector<int64_t> numbers(const json& list) {
    std::vector<int64_t> values;
    for (const json& value : list) values.push_back(whole_number(value));
    return values;
  }

  // None where the numbers are no range of a box.
  static std::optional<BoxRange> range_of(const json& piece) {
    const std::vector<int64_t> shape = numbers(piece.at("shape")), begin = numbers(piece.at("begin")),
                               size = numbers(piece.at("size"));
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

  const SafetensorsFile& open(const std::string& name) {
    if (const auto found = files_.find(name); found != files_.end()) return found->second;
    if (name.find('/') != name.npos || name.find('\0') != name.npos || !name.ends_with(".safetensors"))
      throw UserError(where_, fmt::format("names a file '{}' outside its folder", printable(name)), kResumeOther);
    return files_.try_emplace(name, path_within(folder_, name, kResumeOther)).first->second;
  }

  std::string folder_, where_;
  std::map<std::string, SafetensorsFile> files_;
  std::map<Key, std::vector<Piece>> pieces_;
  std::set<Key> used_;
  std::set<std::string> finer_;
};

// Adds what of the pieces fills `part`. False where they do not have each of its elements once.
bool add_uses(const std::vector<Piece>& pieces, const StatePart& part, std::vector<StreamUse>& uses) {
  const BoxRange wanted = part.range();
  std::vector<std::pair<int64_t, int64_t>> filled;  // [begin, end)
  int64_t covered = 0;
  for (const Piece& piece : pieces) {
    if (piece.range.box.whole() != part.block->shape() || covered > wanted.count) return false;
    const DType dtype = *piece.stored->dtype;
    for (const SharedRun& run : shared_runs(piece.range, wanted)) {
      uses.push_back({piece.file, piece.stored->begin + (run.from - piece.range.first) * dtype_size(dtype), dtype,
                      part.counted.to.slice(run.to - wanted.first, run.count), &part.block->name});
      filled.emplace_back(run.to, run.to + run.count);
      covered += run.count;
    }
  }
  std::ranges::sort(filled);
  int64_t end = wanted.first;
  for (const auto& [from, to] : filled) {
    if (from != end) return false;
    end = to;
  }
  return end == wanted.first + wanted.count;
}

}  // namespace

void put_training_state(Ctx& ctx, const State& state, const SaveOptions& options, Communicator& world,
                        PendingCheckpoint& pending) {
  const std::string file = fmt::format("{}/rank-{:05}.safetensors", kStateFolder, world.rank());
  if (world.rank() == 0) pending.make_folder(kStateFolder);
  std::vector<StatePart> parts;
  json own = json::array();
  for_each_part(state, [&](int param, const StatePart& part) {
    if (part.kind == StateKind::kWeight && is_exact(state, options, param, *part.block)) return;
    parts.push_back(part);
    own.push_back(describe(part, fs::path(file).filename()));
  });
  // Afterwards the folder is there for all.
  const std::vector<std::string> all = gather_texts(ctx, world, "pieces of the training state", own.dump());
  put_parts(ctx, parts, file, pending);
  if (world.rank() != 0) return;
  std::string pieces;
  std::set<std::string> finer;
  for (const std::string& text : all)
    for (const json& piece : json::parse(text)) {
      pieces += fmt::format("{}{}", pieces.empty() ? "\n" : ",\n", piece.dump());
      if (piece.at("kind") == name_of(StateKind::kWeight)) finer.insert(piece.at("tensor").get<std::string>());
    }
  pending.put_file(fmt::format("{}/{}", kStateFolder, kStateIndex),
                   fmt::format("{{\"weights\": {},\n\"pieces\": [{}\n]}}\n", json(finer).dump(), pieces));
}

uint64_t training_state_bytes(const State& state, const SaveOptions& options) {
  uint64_t bytes = 0;
  for_each_part(state, [&](int param, const StatePart& part) {
    if (part.kind != StateKind::kWeight || !is_exact(state, options, param, *part.block))
      bytes += part.counted.to.bytes();
  });
  return bytes;
}

void load_training_state(Ctx& ctx, const std::string& folder, State& state) {
  Pieces pieces(path_within(folder, kStateFolder, kResumeOther));
  std::vector<StreamUse> uses;
  std::set<int> finer;  // parameters with weights in the folder
  for_each_part(state, [&](int param, const StatePart& part) {
    const std::vector<Piece>& stored = pieces.of(part.block->name, part.kind);
    if (part.kind == StateKind::kWeight && stored.empty() && !pieces.is_finer(part.block->name)) return;
    if (part.kind == StateKind::kWeight) finer.insert(param);
    if (!add_uses(stored, part, uses))
      pieces.fail(part.block->name, part.kind, "is not there whole, each of its elements once");
  });
  for (int param = 0; param < state.size(); ++param)
    for (const auto& blocks : {state.spec(param).blocks, state.spec(param).elsewhere})
      for (const HfBlock& block : blocks)
        for (const StateKind kind : kStateKinds)
          if (kind == StateKind::kWeight || state.spec(param).trainable) pieces.of(block.name, kind);
  pieces.check_all_used();
  stream(ctx, std::move(uses));
  for (const int param : finer) state.publish(ctx, param);
  state.share_weights(ctx);
  state.share_moments(ctx);
  wait(ctx);
}

}  // namespace mixtune
