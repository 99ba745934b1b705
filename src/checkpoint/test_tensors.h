// Helpers for the tests of this folder: the tensors of a State as checkpoints hold them, and files of them.
#pragma once

#include "checkpoint/convert.h"
#include "checkpoint/safetensors_writer.h"
#include "checkpoint/test_model.h"

namespace mixtune {

struct TestTensor {
  TensorEntry entry;
  std::vector<float> values;
};

inline void write_tensors(const std::string& path, const std::vector<TestTensor>& tensors) {
  std::vector<TensorEntry> table;
  for (const TestTensor& tensor : tensors) table.push_back(tensor.entry);
  SafetensorsWriter writer(path, table);
  for (size_t i = 0; i < tensors.size(); ++i) {
    std::vector<std::byte> bytes(tensors[i].entry.bytes());
    narrow(tensors[i].values, tensors[i].entry.dtype, bytes);
    writer.write(i, 0, bytes);
  }
  writer.finish();
}

inline std::vector<float> stored_values(const SafetensorsFile& file, std::string_view name) {
  const StoredTensor& tensor = *file.find(name);
  const std::string bytes = file.file().read(tensor.begin, tensor.bytes());
  std::vector<float> values(tensor.shape.elements());
  decode(std::as_bytes(std::span(bytes)), *tensor.dtype, host_tensor(values.data(), tensor.shape));
  return values;
}

// The tensors of a state as the hub has them.
inline std::vector<TestTensor> hub_form(const State& state, DType dtype = DType::kF32) {
  std::vector<TestTensor> tensors;
  for (int param = 0; param < state.size(); ++param)
    for (const HfBlock& slice : state.spec(param).blocks) {
      const float* begin = state.weight(param).as<float>() + slice.offset;
      tensors.push_back({{slice.name, dtype, slice.shape()}, {begin, begin + slice.elements()}});
    }
  return tensors;
}

// The tensors as transformers 5 has them in memory: the parameters of experts are its packed tensors.
inline std::vector<TestTensor> packed_form(const State& state) {
  std::vector<TestTensor> tensors;
  for (TestTensor& tensor : hub_form(state))
    if (const size_t moe = tensor.entry.name.find(".block_sparse_moe."); moe == std::string::npos) {
      tensors.push_back(std::move(tensor));
    } else if (tensor.entry.name.ends_with(".gate.weight")) {
      tensor.entry.name.replace(moe, std::string_view(".block_sparse_moe").size(), ".mlp");
      tensors.push_back(std::move(tensor));
    }
  for (int param = 0; param < state.size(); ++param) {
    const ParamSpec& spec = state.spec(param);
    const bool gate_up = spec.name.ends_with(".gate_up");
    if (!gate_up && !spec.name.ends_with(".down")) continue;
    const std::string layer = spec.name.substr(0, spec.name.rfind('.'));
    const TensorEntry entry{layer + (gate_up ? ".mlp.experts.gate_up_proj" : ".mlp.experts.down_proj"), DType::kF32,
                            spec.shape};
    const float* begin = state.weight(param).as<float>();
    tensors.push_back({entry, {begin, begin + spec.shape.elements()}});
  }
  return tensors;
}

inline TestTensor& named(std::vector<TestTensor>& tensors, std::string_view name) {
  return *std::ranges::find(tensors, name, [](const TestTensor& tensor) { return tensor.entry.name; });
}

}  // namespace mixtune
