// AdapterFolder: a LoRA adapter as PEFT saves it, in any of its layouts (docs/adapters.md).
#pragma once

#include <cstddef>
#include <list>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/adapter_config.h"
#include "checkpoint/adapter_pairs.h"
#include "checkpoint/safetensors.h"
#include "state/state.h"

namespace mixtune {

BaseShapes base_shapes(const State& shape);

class AdapterFolder {
 public:
  // Reads the configuration and the header of the weights (and, where PEFT may have joined w1's and w3's pairs, enough
  // to take them apart). Throws UserError for whatever is wrong with them, or does not fit the base.
  AdapterFolder(const std::string& path, const BaseShapes& base);

  const std::string& path() const { return path_; }
  const AdapterConfig& config() const { return config_; }
  const AdapterLayout& layout() const { return pairs_.layout; }
  // By module, each once.
  const std::vector<AdapterPair>& pairs() const { return pairs_.pairs; }
  const AdapterPair* find(std::string_view module) const {  // null: the adapter leaves it alone
    return const_cast<AdapterFolder*>(this)->pair_of(module);
  }

  // What it has whole, by module, each once.
  const std::vector<AdapterWhole>& whole() const { return pairs_.whole; }
  const AdapterWhole* find_whole(std::string_view module) const;  // null: not whole

  // Elements [first, first + count) of a weight that it has whole. Throws as the other.
  std::vector<float> read(const AdapterWhole& whole, int64_t first, int64_t count) const;
  // Both factors of a pair of this folder. Values may be NaN or infinite. The tensors that were read last are kept, so
  // that the experts of a packed one, asked for one after the other, are read from the file once. Throws Error where
  // the file cannot be read or has changed since it was opened.
  AdapterFactors read(const AdapterPair& pair);

 private:
  struct Kept {
    const StoredTensors::value_type* tensor;
    std::string bytes;
  };
  AdapterPair* pair_of(std::string_view module);
  const std::string& bytes_of(const StoredTensors::value_type* tensor);
  std::vector<float> matrix(const FactorPlace& place, int64_t rows, int64_t columns);
  bool is_joined(const AdapterPair& w1, const AdapterPair& w3);
  void take_apart();

  std::string path_;
  AdapterConfig config_;
  SafetensorsFile file_;
  AdapterPairs pairs_;
  std::list<Kept> kept_;  // the latest first
};

// Opens FOLDER/adapter_model.safetensors. Throws UserError, by name where the weights are in PyTorch's .bin.
SafetensorsFile open_adapter_weights(const std::string& folder);

}  // namespace mixtune
