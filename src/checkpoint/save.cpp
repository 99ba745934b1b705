#include "checkpoint/save.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <sstream>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/output_file.h"
#include "checkpoint/adapter_config.h"
#include "checkpoint/convert.h"
#include "checkpoint/counted_part.h"
#include "checkpoint/edit_config.h"
#include "checkpoint/hf_folder.h"
#include "checkpoint/index.h"
#include "checkpoint/join_files.h"
#include "checkpoint/safetensors_writer.h"
#include "checkpoint/shards.h"
#include "parallel/ranks.h"
#include "state/adapter_names.h"

namespace mixtune {

namespace {

using Shard = std::vector<TensorEntry>;

// The Hugging Face tensors that this rank writes.
std::vector<TensorEntry> hub_tensors(const State& state, const SaveOptions& options) {
  std::vector<TensorEntry> tensors;
  std::unordered_map<std::string, int64_t> missing;  // elements of each tensor that no parameter has
  for (int param = 0; param < state.size(); ++param) {
    if (!state.saves(param) || !is_saved(state, options, param)) continue;
    for (const HfBlock& block : state.spec(param).blocks) {
      const auto [elements, is_new] = missing.emplace(block.name, block.shape().elements());
      if (is_new)
        tensors.push_back(
            {saved_name(state, options, param, block), saved_dtype(state, options, param, block),
             is_embedding_factor(block.name) ? Shape{block.shape()[1], block.shape()[0]} : block.shape()});
      elements->second -= block.elements();
    }
  }
  for (const auto& [name, elements] : missing) MT_CHECK(elements == 0);
  // On every layout the file is the same (join_files).
  if (options.what == SaveOptions::What::kAdapters) std::ranges::sort(tensors, {}, &TensorEntry::name);
  return tensors;
}

// Converts chunks of weights to bytes of a file's type.
class Converter {
 public:
  // The bytes, valid until the next call. Throws Error where a value is not finite or too large for `dtype`.
  std::span<const std::byte> operator()(const Tensor& chunk, DType dtype, const std::string& name) {
    check_finite_to_save(chunk, name);
    if (chunk.dtype == dtype) return bytes_of(chunk);
    const std::span<const float> values = wide(chunk);
    if (dtype == DType::kF32) return std::as_bytes(values);
    narrow_.resize(values.size() * dtype_size(dtype));
    if (!narrow(values, dtype, narrow_))
      throw Error(name, fmt::format("holds a value too large for {}", dtype_name(dtype)), "set save_dtype: fp32");
    return narrow_;
  }

 private:
  std::span<const float> wide(const Tensor& chunk) {
    const auto n = static_cast<size_t>(chunk.elements());
    if (chunk.dtype == DType::kF32) return {chunk.as<float>(), n};
    wide_.resize(n);
    decode(bytes_of(chunk), chunk.dtype, host_tensor(wide_.data(), {chunk.elements()}));
    return wide_;
  }

  std::vector<float> wide_;
  std::vector<std::byte> narrow_;
};

// The files of a checkpoint that all ranks write together: which are this rank's, and what is in each.
struct Files {
  SaveOptions::What what;
  int64_t first = 0, count = 0;  // this rank's are numbers [first, first + own), of `count`
  WeightMap weight_map;          // of all ranks, at rank 0
  uint64_t total_size = 0;

  std::string name(int64_t i) const {
    if (what == SaveOptions::What::kModel) return shard_name(static_cast<size_t>(i), static_cast<size_t>(count));
    return count == 1 ? kAdapterWeightsFile : fmt::format("adapter_model.part-{}.safetensors", i);
  }
};

Files name_files(Ctx& ctx, SaveOptions::What what, const std::vector<Shard>& shards, Communicator& world) {
  std::string names;  // "FILE NAME BYTES" lines, the files counted from this rank's first
  for (size_t i = 0; i < shards.size(); ++i)
    for (const TensorEntry& entry : shards[i]) names += fmt::format("{} {} {}\n", i, entry.name, entry.bytes());
  Files files = {.what = what};
  const std::vector<std::string> all =
      gather_texts(ctx, world, "names of saved tensors", fmt::format("{}\n{}", shards.size(), names));
  std::vector<int64_t> first;
  for (int rank = 0; rank < world.size(); ++rank) {
    if (rank == world.rank()) files.first = files.count;
    first.push_back(files.count);
    files.count += std::stoll(all[rank]);
  }
  for (int rank = 0; rank < world.size(); ++rank) {
    std::istringstream lines(all[rank].substr(all[rank].find('\n') + 1));
    std::string name;
    uint64_t bytes = 0;
    for (int64_t i = 0; lines >> i >> name >> bytes; files.total_size += bytes)
      files.weight_map.emplace(name, files.name(first[rank] + i));
  }
  return files;
}

// A file of this rank. Open from the first of its bytes to the last.
class ShardFile {
 public:
  ShardFile(std::string path, Shard entries) : path_(std::move(path)), entries_(std::move(entries)) {
    for (size_t e = 0; e < entries_.size(); ++e) places_[entries_[e].name] = e;
  }

  // Writes `chunk`: elements, from index `first` on, of the block of the tensor that is `name` there. Returns whether
  // the file is whole now.
  bool write(const std::string& name, const HfBlock& block, int64_t first, const Tensor& chunk) {
    const size_t number = places_.at(name);
    const TensorEntry& entry = entries_[number];
    const auto size = static_cast<int64_t>(dtype_size(entry.dtype));
    const std::span<const std::byte> bytes = converted_(chunk, entry.dtype, entry.name);
    open();
    if (is_embedding_factor(name)) return write_transposed(number, block, bytes);
    block.box.for_each_run(first, chunk.elements(), [&](int64_t index, int64_t place, int64_t n) {
      writer_->write(number, place * size, bytes.subspan((index - first) * size, n * size));
    });
    return writer_->missing() == 0;
  }
  // The same of the whole block, with its values as the model that the run began with has them, byte by byte.
  bool copy(const HfBlock& block, const StoredValues& from) {
    const size_t number = places_.at(block.name);
    const auto size = static_cast<int64_t>(dtype_size(from.dtype));
    MT_CHECK(entries_[number].dtype == from.dtype);
    std::vector<std::byte> values;
    open();
    block.box.for_each_run(0, block.elements(), [&](int64_t, int64_t place, int64_t n) {
      for (const int64_t end = place + n; place < end;) {
        const int64_t count = std::min(end - place, WriteBehind::kChunkBytes / size);
        const FileStretch stretch = from.stretch(place, count);
        const std::string bytes = stretch.file->read(stretch.begin, stretch.end - stretch.begin);
        writer_->write(number, place * size, from.values(place, count, std::as_bytes(std::span(bytes)), values));
        place += count;
      }
    });
    from.file->file().check_unchanged();
    return writer_->missing() == 0;
  }
  StoredFile finish() {
    open();  // one without a byte is a file, too
    StoredFile stored = writer_->finish();
    writer_.reset();
    converted_ = {};
    return stored;
  }
  bool has_bytes() const {
    return std::ranges::any_of(entries_, [](const TensorEntry& entry) { return entry.bytes() > 0; });
  }

 private:
  void open() {
    if (!writer_) writer_.emplace(path_, entries_);
  }

  // The block is the whole tensor, whose chunks come one after the other.
  bool write_transposed(size_t number, const HfBlock& block, std::span<const std::byte> bytes) {
    whole_.insert(whole_.end(), bytes.begin(), bytes.end());
    if (whole_.size() < entries_[number].bytes()) return false;
    writer_->write(number, 0, transposed(whole_, dtype_size(entries_[number].dtype), block.shape()));
    whole_ = {};
    return writer_->missing() == 0;
  }

  const std::string path_;
  const Shard entries_;
  std::unordered_map<std::string, size_t> places_;
  std::optional<SafetensorsWriter> writer_;
  std::vector<std::byte> whole_;  // what has come of a tensor that is to be transposed
  Converter converted_;
};

// The files of this rank, and the queue of each.
class ShardFiles {
 public:
  ShardFiles(std::vector<Shard> shards, const Files& files, PendingCheckpoint& pending) : pending_(pending) {
    for (size_t i = 0; i < shards.size(); ++i) {
      const std::string name = files.name(files.first + static_cast<int64_t>(i));
      for (const TensorEntry& entry : shards[i]) places_[entry.name] = i;
      files_.push_back({name, pending.behind().new_queue(),
                        std::make_shared<ShardFile>(pending.folder() + "/" + name, std::move(shards[i]))});
      if (!files_.back().file->has_bytes())
        pending.behind().put(files_.back().queue, [finish = finisher(files_.back())] { finish(); });
    }
  }

  void put(Ctx& ctx, const std::string& name, const HfBlock& block, const Tensor& values) {
    const File& to = files_[places_.at(name)];
    pending_.behind().put(
        ctx, to.queue, values,
        [name, &block, file = to.file, finish = finisher(to), first = int64_t{0}](const Tensor& chunk) mutable {
          if (file->write(name, block, first, chunk)) finish();
          first += chunk.elements();
        });
  }

  void copy(const HfBlock& block, const HfFolder& source) {
    const File& to = files_[places_.at(block.name)];
    pending_.behind().put(to.queue, [&block, file = to.file, finish = finisher(to), from = source.stored(block)] {
      if (file->copy(block, from)) finish();
    });
  }

 private:
  struct File {
    std::string name;
    WriteBehind::Queue queue;
    std::shared_ptr<ShardFile> file;
  };
  std::function<void()> finisher(const File& of) const {
    return [name = of.name, file = of.file, written = pending_.written()] {
      written->add(name, file->finish());
    };
  }

  PendingCheckpoint& pending_;
  std::unordered_map<std::string, size_t> places_;
  std::vector<File> files_;
};

// Whether a block is not trained, and held in less than the model has of it, which is then written as it is.
bool keeps_stored_bytes(const State& state, const SaveOptions& options, int param, const HfBlock& block) {
  if (state.spec(param).trainable || options.dtype || !options.source || !is_stored(state, param)) return false;
  const DType held = state.weight(param).dtype;
  return dtype_size(held) < sizeof(float) && block.added == 0 && saved_dtype(state, options, param, block) != held;
}

void put_weights(Ctx& ctx, const State& state, const SaveOptions& options, ShardFiles& files) {
  state.for_each_saved(ctx, saves_masters(state, options), [&](std::span<const State::Saved> params) {
    for (const auto& [param, values] : params) {
      if (!is_saved(state, options, param)) continue;
      for (const HfBlock& block : state.spec(param).blocks)
        if (keeps_stored_bytes(state, options, param, block))
          files.copy(block, *options.source);
        else
          files.put(ctx, saved_name(state, options, param, block), block,
                    values.view({values.elements()}).slice(block.offset, block.elements()));
    }
  });
}

}  // namespace

bool is_saved(const State& state, const SaveOptions& options, int param) {
  const bool model = options.what == SaveOptions::What::kModel;
  return is_stored(state, param) ? model || state.spec(param).trainable : !model;
}

std::string saved_name(const State& state, const SaveOptions& options, int param, const HfBlock& block) {
  if (options.what == SaveOptions::What::kModel || !is_stored(state, param)) return block.name;
  return adapter_tensor_name(module_of(block.name), AdapterFactor::kWhole, AdapterNaming::kHub);
}

DType saved_dtype(const State& state, const SaveOptions& options, int param, const HfBlock& block) {
  if (options.dtype) return *options.dtype;
  if (!is_stored(state, param)) return state.weight(param).dtype;
  return *options.source->locate(block.name, block.stored_shape()).stored->dtype;
}

std::string saved_config(const SaveOptions& options) {
  return options.dtype ? with_dtype(options.config_json, *options.dtype) : options.config_json;
}

SavedBytes saved_bytes(const State& state, const SaveOptions& options) {
  const bool masters = saves_masters(state, options);
  SavedBytes bytes;
  for (int param = 0; param < state.size(); ++param) {
    if (!state.saves(param) || !is_saved(state, options, param)) continue;
    const DType held = (masters ? state.primary(param) : state.weight(param)).dtype;
    for (const HfBlock& block : state.spec(param).blocks) {
      if (!keeps_stored_bytes(state, options, param, block)) bytes.copied += block.elements() * dtype_size(held);
      bytes.written += block.elements() * dtype_size(saved_dtype(state, options, param, block));
    }
  }
  return bytes;
}

bool saves_masters(const State& state, const SaveOptions& options) {
  if (!state.types().masters) return false;
  for (int param = 0; param < state.size(); ++param) {
    const ParamSpec& spec = state.spec(param);
    const DType held = spec.dtype.value_or(state.types().weights);
    if (!spec.trainable || !is_saved(state, options, param) || held == DType::kF32 ||
        (!options.dtype && !is_stored(state, param)))
      continue;
    for (const auto& blocks : {spec.blocks, spec.elsewhere})
      for (const HfBlock& block : blocks)
        if (saved_dtype(state, options, param, block) != held) return true;
  }
  return false;
}

PendingCheckpoint::PendingCheckpoint(Ctx& ctx, const State& state, const SaveOptions& options, Communicator& world,
                                     WriteBehind& behind)
    : behind_(behind) {
  MT_CHECK(options.dtype || options.source);
  const Frame frame(ctx);
  std::vector<Shard> shards = cut_into_shards(hub_tensors(state, options), options.max_shard_size);
  const Files files = name_files(ctx, options.what, shards, world);
  if (world.rank() == 0)
    try_to([&] {
      check_space(options.out_folder, files.total_size + options.more_bytes);
      staged_.emplace(options.out_folder);
    });
  folder_ = gather_texts(ctx, world, "folder to save to", staged_ ? staged_->path() : "")[0];
  if (folder_.empty()) return;
  if (world.rank() == 0) {
    for (const SideFile& file : options.side_files) put_file(file.name, file.content);
    const bool adapters = options.what == SaveOptions::What::kAdapters;
    put_file(adapters ? kAdapterConfigFile : kConfigFile, adapters ? options.config_json : saved_config(options));
    if (files.count > 1 && !adapters) put_file(kIndexFile, format_index(files.weight_map, files.total_size));
    for (int64_t i = 0; adapters && files.count > 1 && i < files.count; ++i) parts_.push_back(files.name(i));
  }
  ShardFiles own(std::move(shards), files, *this);
  put_weights(ctx, state, options, own);
}

// What is wrong with a folder is the first failure of writing: all ranks go on together.
template <class F>
void PendingCheckpoint::try_to(F&& work) {
  try {
    work();
  } catch (...) {
    behind_.put(behind_.new_queue(), [failure = std::current_exception()] { std::rethrow_exception(failure); });
  }
}

void PendingCheckpoint::make_folder(const std::string& name) {
  folders_.push_back(folder_ + "/" + name);
  try_to([this] {
    if (mkdir(folders_.back().c_str(), 0777) != 0)
      throw Error(printable_path(folders_.back()), fmt::format("cannot be made: {}", std::strerror(errno)),
                  "check the disk's space and the folder's permissions");
  });
}

void PendingCheckpoint::put_file(const std::string& name, std::string content) {
  behind_.put(behind_.new_queue(), [=, path = folder_ + "/" + name, written = written_, content = std::move(content)] {
    write_file(path, content);
    written->add(name, stored_file(content));
  });
}

void PendingCheckpoint::join_adapters(StoredFiles& files) const {
  if (parts_.empty()) return;
  files[kAdapterWeightsFile] = join_files(folder_, parts_, kAdapterWeightsFile);
  for (const std::string& part : parts_) {
    files.erase(part);
    std::filesystem::remove(folder_ + "/" + part);
  }
}

void PendingCheckpoint::commit() {
  for (const std::string& folder : folders_) sync_folder(folder);
  staged_->commit();
}

void save_checkpoint(Ctx& ctx, const State& state, const SaveOptions& options, Communicator& world) {
  WriteBehind behind(ctx, WriteBehind::kLeastBytes);
  PendingCheckpoint pending(ctx, state, options, world, behind);
  behind.wait();
  if (const std::exception_ptr failure = behind.take_failure()) std::rethrow_exception(failure);
  barrier(ctx, world, "end of saving");  // all files are there
  if (world.rank() == 0) {
    StoredFiles files;
    pending.join_adapters(files);
    pending.commit();
  }
  barrier(ctx, world, "checkpoint in place");
}

void save_checkpoint(Ctx& ctx, const State& state, const SaveOptions& options) {
  save_checkpoint(ctx, state, options, *make_single_communicator());
}

}  // namespace mixtune
