// FourBitTensor: a tensor that a checkpoint has in NF4, as bitsandbytes stores it: six tensors, or four where absmax
// are not quantised. The other readers of a checkpoint see one tensor with its own name, shape and type.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/quant_state.h"
#include "checkpoint/safetensors.h"

namespace mixtune {

class FourBitTensor {
 public:
  // Where its parts lie. nested_absmax and nested_map are read; absmax are read as they are needed.
  struct Parts {
    const SafetensorsFile* absmax_file;
    uint64_t absmax_begin;  // byte
    std::vector<float> nested_absmax = {}, nested_map = {};
    uint64_t bytes = 0;  // of all but the codes
  };
  FourBitTensor(const QuantState& state, Parts parts) : state_(state), parts_(std::move(parts)) {}

  const QuantState& state() const { return state_; }
  uint64_t bytes_beside_codes() const { return parts_.bytes; }
  // Whether it is doubly quantised as mixtune does it, of so many elements to a block and of values of this type.
  bool is_of(int64_t block, DType dtype) const;
  // absmax of all blocks, as the file has them. Throws Error where it cannot be read.
  std::vector<std::byte> absmax() const;
  const std::vector<float>& nested_absmax() const { return parts_.nested_absmax; }

  // The codes that values of elements [first, first + count) are made of: bytes of the tensor X.
  struct Codes {
    uint64_t begin, end;
  };
  Codes codes(int64_t first, int64_t count) const;
  // Fills `to` with the bytes of these values in the tensor's type, each rounded once from the fp32 that `codes` stand
  // for. Too large a value becomes infinite. Throws Error where the file of absmax cannot be read.
  void values(int64_t first, int64_t count, std::span<const std::byte> codes, std::vector<std::byte>& to) const;

 private:
  int64_t first_block_element(int64_t element) const { return element / state_.block * state_.block; }

  QuantState state_;
  Parts parts_;
};

// Joins the tensors X, X.absmax, X.quant_map, X.nested_absmax, X.nested_quant_map and
// X.quant_state.bitsandbytes__nf4, in whichever files they are, to X (StoredTensor::four_bit). Returns the names of all
// X. Nothing in the files is trusted: throws UserError where a part is missing, or has a type or size that the
// quant_state does not ask for.
std::vector<std::string> join_four_bit(std::vector<SafetensorsFile>& files);

}  // namespace mixtune
