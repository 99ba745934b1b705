// AdapterWriter: writes LoRA adapters that PEFT, vLLM and llama.cpp load (docs/adapters.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/adapter_config.h"
#include "checkpoint/adapter_pairs.h"
#include "checkpoint/safetensors_writer.h"
#include "state/adapter_names.h"

namespace mixtune {

// An adapter to write. All pairs have one rank and one scaling, alpha / r (with rslora, alpha / sqrt(r)): programs that
// load adapters differ in what they make of others.
struct NewAdapter {
  // A weight's module by the hub's name without ".weight", and the weight's shape.
  struct Module {
    std::string name;
    int64_t in = 0, out = 0;
  };
  std::string base;  // where the base is: a name of the hub or a folder; "": not said
  int64_t r = 0;
  double alpha = 0;
  bool rslora = false;          // folded into the alpha that is written: not every program reads use_rslora
  std::vector<Module> modules;  // in the order of the file. PEFT wants w1, w2 and w3 of all experts of a layer, or none
  DType dtype = DType::kF32;    // fp32, bf16 or fp16
  AdapterNaming naming = AdapterNaming::kHub;
};

// Writes adapter_model.safetensors and adapter_config.json into a folder that is there, one pair after another.
class AdapterWriter {
 public:
  AdapterWriter(const std::string& folder, const NewAdapter& adapter);

  // Writes the factors of modules[module], row by row: A [r, in] and B [out, r]; each module once. Throws Error
  // (kWentBad) naming the module where a value is not finite, or too large for the type.
  void write(size_t module, std::span<const float> a, std::span<const float> b);
  // Both files are on the disk when it returns. What was written, by name, for a manifest.
  StoredFiles finish();

 private:
  void write_factor(size_t entry, const Shape& shape, std::span<const float> values);

  const std::string folder_;
  const NewAdapter adapter_;
  SafetensorsWriter writer_;
};

// Makes the folder, whole or not at all. `factors(i)` gives those of modules[i]; it is called once for each, in order.
// Throws UserError where `out` exists.
void write_adapter_folder(const std::string& out, const NewAdapter& adapter,
                          const std::function<AdapterFactors(size_t module)>& factors);

}  // namespace mixtune
