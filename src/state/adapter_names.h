// The names that an adapter's tensors have in files, and those that other programs know.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mixtune {

// What a tensor is of its module: a factor of its pair, or the weight itself, which was trained whole beside pairs
// (PEFT's modules_to_save), or a copy of the base's weight, which PEFT writes beside pairs of the head and the
// embedding.
//
// W + s B A of the embedding's W [V, H], as of any other, has A [r, H] and B [V, r]. PEFT means another pair, of W as a
// projection of one-hot rows: its lora_embedding_A [r, V] is the transpose of this B, its lora_embedding_B [H, r] of A.
enum class AdapterFactor : uint8_t { kA, kB, kWhole, kBase };

// What a tensor's name says.
struct AdapterTensorName {
  enum Kind : uint8_t {
    kModule,       // of one weight
    kPackedInner,  // of a packed parameter of all experts of a layer, below another one's
    kPackedOuter,  // of the other, or of the only one
  };
  Kind kind;
  AdapterFactor factor;
  std::string
      module;        // the hub's name of the weight, without ".weight"; of packed experts "...block_sparse_moe.experts"
  std::string peft;  // what PEFT matches patterns with; of packed experts without the parameter's name
};
using AdapterTensorKind = AdapterTensorName::Kind;

// Reads a name in any layout (docs/adapters.md). Throws UserError, `where` in front, for all others.
AdapterTensorName parse_adapter_name(std::string_view stored, const std::string& where);

// The module whose weight the hub's tensor is; "" for other tensors.
std::string module_of(std::string_view tensor);

// Whether an entry of modules_to_save names the hub's module: as PEFT has it, where the module's name ends so, in
// either version of transformers.
bool names_module(std::string_view entry, std::string_view module);

// How experts are called in files that are written.
enum class AdapterNaming : uint8_t {
  kHub,     // block_sparse_moe.experts.E.w1, w3, w2: for PEFT, vLLM and llama.cpp
  kSglang,  // block_sparse_moe.experts.E.gate_proj, up_proj, down_proj: for SGLang and vLLM
};

// A tensor's name in a file; `module` is the hub's. A whole gate is below `mlp`: PEFT on transformers 5, which converts
// the names of pairs alone, knows it by no other.
std::string adapter_tensor_name(std::string_view module, AdapterFactor factor, AdapterNaming naming);

// The part of that name which says which factor it is: lora_A, or, of PEFT's for the embedding, lora_embedding_B.
std::string factor_name(std::string_view module, AdapterFactor factor);

// Whether it names a factor of the embedding's pair: the tensor in a file is the transpose of the factor.
bool is_embedding_factor(std::string_view stored);

// What target_modules calls a module: the last part of its name.
std::string target_module(std::string_view module, AdapterNaming naming);

}  // namespace mixtune
