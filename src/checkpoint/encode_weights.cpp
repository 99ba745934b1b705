#include "checkpoint/encode_weights.h"

#include <algorithm>
#include <vector>

#include "checkpoint/four_bit.h"
#include "checkpoint/stream_values.h"

namespace mixtune {

namespace {

// A block of a parameter held as codes, and where its values lie.
struct Source {
  int param;
  size_t block;
  const HfBlock* slice;
  StoredValues values;

  // Whether the folder has the codes that the state wants.
  bool has_codes(const State& state) const {
    return state.spec(param).held_in == BasePrecision::kNf4 && values.four_bit != nullptr &&
           values.four_bit->is_of(kNf4Block, DType::kBF16);
  }
};

std::vector<Source> sources_of(const HfFolder& folder, const State& state) {
  std::vector<Source> sources;
  for (int param = 0; param < state.size(); ++param) {
    if (!state.is_coded(param)) continue;
    const std::vector<HfBlock>& blocks = state.spec(param).blocks;
    for (size_t b = 0; b < blocks.size(); ++b) {
      MT_CHECK(blocks[b].elements() == blocks[b].shape().elements() && blocks[b].added == 0);  // a whole tensor
      sources.push_back({param, b, &blocks[b], folder.stored(blocks[b])});
    }
  }
  return sources;
}

// The folder's own codes.
void take_codes(Ctx& ctx, const Source& source, State& state) {
  const FourBitTensor& from = *source.values.four_bit;
  const Nf4Tensor& to = state.nf4(ctx, source.param, source.block);
  const FileStretch stretch = source.values.stretch(0, to.elements);
  std::vector<std::byte> codes(stretch.end - stretch.begin), absmax = from.absmax();
  stretch.file->read(stretch.begin, codes);
  float offset = *from.state().offset;
  const auto bytes = [](std::vector<std::byte>& of) {
    return host_tensor(reinterpret_cast<uint8_t*>(of.data()), {std::ssize(of)});
  };
  copy(ctx, bytes(codes), to.codes);
  copy(ctx, bytes(absmax), to.absmax);
  copy(ctx, host_tensor(from.nested_absmax().data(), {std::ssize(from.nested_absmax())}), to.nested_absmax);
  copy(ctx, host_tensor(&offset, {1}), to.offset);
  wait(ctx);
}

// Reads the values of some blocks at once, and makes codes of them.
void encode(Ctx& ctx, const HfFolder& folder, std::span<const Source> sources, State& state) {
  const Frame frame(ctx);
  std::vector<Tensor> values;
  ValueUses uses;
  for (const Source& source : sources) {
    values.push_back(ctx.stack.push("weights to encode", {source.slice->elements()}, state.types().weights));
    uses.add(source.values, 0, values.back(), source.slice->name);
  }
  const StoredFiles unknown;
  stream_values(ctx, std::move(uses), {folder.path(), unknown});
  for (size_t i = 0; i < sources.size(); ++i) state.encode(ctx, sources[i].param, sources[i].block, values[i]);
  wait(ctx);
}

}  // namespace

uint64_t encoded_bytes(const HfFolder& folder, const State& state) {
  uint64_t bytes = 0;
  for (const Source& source : sources_of(folder, state)) {
    const FileStretch stretch = source.values.stretch(0, source.slice->elements());
    bytes += stretch.end - stretch.begin;
  }
  return bytes;
}

void encode_weights(Ctx& ctx, const HfFolder& folder, State& state) {
  std::vector<Source> sources = sources_of(folder, state);
  for (const Source& source : sources)
    if (source.has_codes(state)) take_codes(ctx, source, state);
  std::erase_if(sources, [&](const Source& source) { return source.has_codes(state); });
  const size_t room = ctx.stack.left() / 2, element = dtype_size(state.types().weights);
  for (size_t begin = 0, end; begin < sources.size(); begin = end) {
    size_t bytes = 0;
    for (end = begin; end < sources.size(); ++end) {
      const size_t more = align_up(static_cast<size_t>(sources[end].slice->elements()) * element);
      if (end > begin && bytes + more > room) break;
      bytes += more;
    }
    encode(ctx, folder, std::span(sources).subspan(begin, end - begin), state);
  }
}

}  // namespace mixtune
