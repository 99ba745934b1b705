// AdapterPair: the low-rank pair of one weight, wherever its elements lie in an adapter's file.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/adapter_config.h"
#include "checkpoint/safetensors.h"

namespace mixtune {

// The base's tensors: their shapes by the hub's names.
using BaseShapes = std::map<std::string, Shape, std::less<>>;

// A matrix in a stored tensor: its element (i, j) is that tensor's element first + i * row_step + j * column_step.
struct FactorPlace {
  const StoredTensors::value_type* tensor;
  int64_t first, row_step, column_step;

  const StoredTensor& stored() const { return tensor->second; }
};

// y = x W^T + scaling (x A^T) B^T.
struct AdapterPair {
  std::string module;  // the hub's name of W without ".weight": model.layers.0.block_sparse_moe.experts.3.w1
  int64_t rank, in, out;
  double scaling;
  FactorPlace a;  // [rank, in]
  FactorPlace b;  // [out, rank]

  std::string weight() const { return module + ".weight"; }
};

// A weight that was trained whole: the tensor is what the module has in place of the base's.
struct AdapterWhole {
  std::string module;
  const StoredTensors::value_type* tensor;
};

// A pair's values, row by row.
struct AdapterFactors {
  std::vector<float> a, b;  // [rank, in], [out, rank]
};

// How the file has them.
struct AdapterLayout {
  bool packed = false;       // a tensor holds the factors of all experts of a layer
  bool transposed = false;   // packed as PEFT before 0.19.1 does it
  bool double_rank = false;  // w1 and w3 have twice the configuration's rank, as where PEFT has joined two pairs
};

struct AdapterPairs {
  std::vector<AdapterPair> pairs;   // by module; each factor's tensor is an entry of the file's
  std::vector<AdapterWhole> whole;  // by module
  AdapterLayout layout;
};

// The pairs of a file's tensors. None of them is trusted: throws UserError, `where` in front, for a name or type that
// is not read, a factor without the other, a module twice, a rank that the configuration does not have, and shapes that
// are not those of the base, for a whole weight that modules_to_save names and the file lacks, and for a whole
// embedding, or a pair of it, of a base whose head is the same. A copy of the base's weight beside a pair has its
// shape, and is not read.
AdapterPairs adapter_pairs(const StoredTensors& tensors, const AdapterConfig& config, const BaseShapes& base,
                           const std::string& where);

}  // namespace mixtune
