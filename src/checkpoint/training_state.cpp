#include "checkpoint/training_state.h"

#include <fmt/format.h>

#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json_value.h"
#include "checkpoint/convert.h"
#include "checkpoint/counted_part.h"
#include "checkpoint/safetensors_writer.h"
#include "checkpoint/state_index.h"
#include "checkpoint/stream.h"
#include "parallel/ranks.h"

namespace mixtune {

namespace {

using nlohmann::json;

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

// What a checkpoint may have of the whole model.
std::set<StateIndex::Key> kept(const State& state) {
  std::set<StateIndex::Key> keys;
  for (int param = 0; param < state.size(); ++param)
    for (const auto& blocks : {state.spec(param).blocks, state.spec(param).elsewhere})
      for (const HfBlock& block : blocks)
        for (const StateKind kind : kStateKinds)
          if (kind == StateKind::kWeight || state.spec(param).trainable) keys.emplace(block.name, kind);
  return keys;
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

// What one file has.
struct StateFile {
  std::string name;
  std::vector<StatePart> parts;
  uint64_t bytes = 0;
};

// The files of this rank, of up to options.max_shard_size: threads write them side by side.
std::vector<StateFile> state_files(const State& state, const SaveOptions& options, int rank) {
  std::vector<StateFile> files;
  for_each_part(state, [&](int param, const StatePart& part) {
    if (part.kind == StateKind::kWeight && is_exact(state, options, param, *part.block)) return;
    const uint64_t bytes = part.counted.to.bytes();
    if (files.empty() || files.back().bytes + bytes > options.max_shard_size)
      files.push_back({fmt::format("rank-{:05}-{:05}.safetensors", rank, files.size() + 1)});
    files.back().parts.push_back(part);
    files.back().bytes += bytes;
  });
  return files;
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

void put_file(Ctx& ctx, const StateFile& what, PendingCheckpoint& pending) {
  std::vector<TensorEntry> entries;
  for (const StatePart& part : what.parts)
    entries.push_back({entry_name(part), part.counted.to.dtype, {part.counted.to.elements()}});
  const std::string name = fmt::format("{}/{}", kStateFolder, what.name);
  const auto file = std::make_shared<PartsFile>(pending.folder() + "/" + name, std::move(entries));
  WriteBehind& behind = pending.behind();
  const WriteBehind::Queue queue = behind.new_queue();
  for (size_t i = 0; i < what.parts.size(); ++i)
    behind.put(ctx, queue, what.parts[i].counted.to, [=](const Tensor& chunk) { file->write(i, chunk); });
  behind.put(queue, [=, written = pending.written()] { written->add(name, file->finish()); });
}

}  // namespace

void put_training_state(Ctx& ctx, const State& state, const SaveOptions& options, Communicator& world,
                        PendingCheckpoint& pending) {
  if (world.rank() == 0) pending.make_folder(kStateFolder);
  const std::vector<StateFile> files = state_files(state, options, world.rank());
  json own = json::array();
  for (const StateFile& file : files)
    for (const StatePart& part : file.parts) own.push_back(describe(part, file.name));
  // Afterwards the folder is there for all.
  const std::vector<std::string> all = gather_texts(ctx, world, "pieces of the training state", own.dump());
  for (const StateFile& file : files) put_file(ctx, file, pending);
  if (world.rank() != 0) return;
  std::string pieces;
  std::set<std::string> finer;
  for (const std::string& text : all)
    for (const json& piece : json::parse(text)) {
      pieces += fmt::format("{}{}", pieces.empty() ? "\n" : ",\n", piece.dump());
      if (piece.at("kind") == name_of(StateKind::kWeight)) finer.insert(piece.at("tensor").get<std::string>());
    }
  pending.put_file(fmt::format("{}/{}", kStateFolder, kStateIndexFile),
                   fmt::format("{{\"weights\": {},\n\"pieces\": [{}\n]}}\n", json(finer).dump(), pieces));
}

uint64_t training_state_bytes(const State& state, const SaveOptions& options) {
  uint64_t bytes = 0;
  for (const StateFile& file : state_files(state, options, 0)) bytes += file.bytes;
  return bytes;
}

void load_training_state(Ctx& ctx, const std::string& folder, State& state, const StoredFiles& written) {
  const StateIndex index(folder, kResumeOther);
  std::vector<StreamUse> uses;
  std::set<int> finer;  // parameters with weights in the folder
  for_each_part(state, [&](int param, const StatePart& part) {
    const std::string& name = part.block->name;
    const StateIndex::Key key = {name, part.kind};
    if (part.kind == StateKind::kWeight && !index.has(key) && !index.is_finer(name)) return;
    if (part.kind == StateKind::kWeight) finer.insert(param);
    const BoxRange wanted = part.range();
    for (const StateRun& run : index.runs(key, wanted))
      uses.push_back({run.file, run.begin, run.dtype, part.counted.to.slice(run.to - wanted.first, run.count), &name});
  });
  index.check_known(kept(state));
  stream(ctx, std::move(uses), {folder, written});
  for (const int param : finer) state.publish(ctx, param);
  state.share_weights(ctx);
  state.share_moments(ctx);
  wait(ctx);
}

}  // namespace mixtune
