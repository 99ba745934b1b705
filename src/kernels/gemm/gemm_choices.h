// GemmChoices: the algorithm of the GEMM library for each class of products that share one, and the file that keeps the
// choices for later runs. Needs no GPU.
#pragma once

#include <array>
#include <compare>
#include <map>
#include <string>
#include <string_view>

#include "tensor/tensor.h"

namespace mixtune {

// A product C [m, n] = op(A) op(B) (gemm.h) as far as an algorithm depends on it. One of its sizes counts tokens: the
// rows of C, or with trans_a (a weight's gradient) the length of the sums. Operands in codes (e4m3) lie in memory as
// quantise.h has them, whatever trans_a and trans_b.
struct GemmKey {
  int64_t m = 0, n = 0, k = 0;
  DType operands = DType::kF32, result = DType::kF32;
  DType scales = DType::kF32;  // of operands in codes: quantise.h's kinds, which differ in it
  bool trans_a = false, trans_b = false, accumulate = false;
  int alignment = 256;  // in bytes, all three matrices': 256, 16 or a smaller power of two

  int64_t tokens() const { return trans_a ? k : m; }
  GemmKey with_tokens(int64_t tokens) const;
  // With both transposed the tokens are B's row length, on whose alignment algorithms depend: each number has its own.
  bool has_buckets() const { return !(trans_a && trans_b); }
  // The key under which an algorithm is kept: the tokens rounded up to those that share one.
  GemmKey bucket() const;

  auto operator<=>(const GemmKey&) const = default;
  std::string str() const;  // "bf16 fp32 tn 28672x4096x6144 += 256"; of MX codes "e4m3/e8m0 bf16 ..."
};

// The bucket of tokens: the smallest of 128, 256, 384, 512, 768, 1024, 1536, ... (two an octave) not below `tokens`.
int64_t token_bucket(int64_t tokens);

// The class of alignment of an address.
int alignment_class(uintptr_t address);

// An algorithm as cuBLASLt keeps it: opaque, and only good for one version of it on one kind of GPU.
using GemmAlgorithm = std::array<uint64_t, 8>;

struct GemmChoice {
  GemmAlgorithm algorithm{};
  double microseconds = 0;  // 0: not measured
};
using GemmChoices = std::map<GemmKey, GemmChoice>;

// The text of a file of choices. `machine` names GPU and library; a reader on another one ignores the file.
std::string format_choices(std::string_view machine, const GemmChoices& choices);

// The choices that were measured. All others are the library's first, which any rank and run finds again.
GemmChoices measured_among(const GemmChoices& choices);

// 16 hexadecimal digits that differ where `machine`, a product or its algorithm does.
std::string digest_of(std::string_view machine, const GemmChoices& choices);

struct ReadChoices {
  GemmChoices choices;
  int bad_lines = 0;             // lines left out because they are damaged
  bool of_this_machine = false;  // false: there are no choices
};
ReadChoices parse_choices(std::string_view text, std::string_view machine);

// The choices in the file `path`; none where there is no such file. Warns of a file that is damaged, of another machine
// or too large. Ask CublasLt::fits before an algorithm is used: any 64 bytes can stand in a file.
GemmChoices read_choices(const std::string& path, std::string_view machine);

// Adds to what the file holds, in place of older choices of the same products. No reader sees half of it. Of two
// processes at once neither loses what the other measured (where the file system has locks). Makes the folder, and
// leaves an empty file "PATH.lock". A failure is a warning, since the choices can be made again.
void add_choices(const std::string& path, std::string_view machine, const GemmChoices& choices);

}  // namespace mixtune
