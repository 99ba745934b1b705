#include "checkpoint/adapter_pairs.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <utility>

#include "base/error.h"
#include "checkpoint/convert.h"
#include "state/adapter_names.h"

namespace mixtune {

namespace {

using FileTensor = StoredTensors::value_type;

constexpr const char* kDamagedAdapter = "the adapter is damaged or incomplete: get it again";
constexpr const char* kOtherBase = "give the base that the adapter was trained on";

// Both factors of a module, or of a packed parameter.
struct StoredPair {
  std::string peft;
  const FileTensor *a = nullptr, *b = nullptr;
};
using StoredPairs = std::map<std::pair<std::string, AdapterTensorKind>, StoredPair>;

// What a packed parameter is made of: the matrices of each expert, one below the other.
struct PackedPair {
  std::string experts;  // "model.layers.0.block_sparse_moe.experts"
  StoredPair stored;
  std::vector<const char*> matrices;           // w1, w3; or w2
  int64_t experts_count = 0, in = 0, out = 0;  // out: of one matrix
  int64_t rank = 0;
  double scaling = 0;

  int64_t all_out() const { return out * static_cast<int64_t>(matrices.size()); }
};

class PairReader {
 public:
  PairReader(const AdapterConfig& config, const BaseShapes& base, const std::string& where)
      : config_(config), base_(base), where_(where) {}

  AdapterPairs read(const StoredTensors& tensors) {
    std::vector<PackedPair> packed;
    for (const auto& [key, stored] : stored_pairs(tensors)) {
      if (key.second == AdapterTensorKind::kModule)
        add_plain(key.first, stored);
      else
        packed.push_back(packed_pair(key.first, key.second, stored));
    }
    result_.layout.packed = !packed.empty();
    result_.layout.transposed = is_transposed(packed);
    for (const PackedPair& p : packed) add_packed(p);
    read_whole(tensors);
    std::ranges::sort(result_.pairs, {}, &AdapterPair::module);
    const auto twice = std::ranges::adjacent_find(result_.pairs, {}, &AdapterPair::module);
    if (twice != result_.pairs.end()) fail(fmt::format("has two pairs for {}", twice->module), kDamagedAdapter);
    check_any();
    return std::move(result_);
  }

 private:
  [[noreturn]] void fail(const std::string& what, const char* mend) const { throw UserError(where_, what, mend); }

  [[noreturn]] void fail_tensor(const FileTensor& entry, const std::string& what, const char* mend) const {
    fail(fmt::format("tensor '{}' {}", printable(entry.first, 200), what), mend);
  }

  void check_type(const FileTensor& entry) const {
    const StoredTensor& stored = entry.second;
    if (stored.dtype && is_weight_dtype(*stored.dtype)) return;
    fail_tensor(entry, fmt::format("is of type {}", printable(stored.dtype_text)),
                "mixtune reads F32, BF16 and F16: save the adapter in one of them");
  }

  void read_whole(const StoredTensors& tensors) {
    for (const FileTensor& entry : tensors) {
      const AdapterTensorName name = parse_adapter_name(entry.first, where_);
      if (name.factor != AdapterFactor::kWhole && name.factor != AdapterFactor::kBase) continue;
      check_shape(entry, base_shape(name.module, entry));
      if (name.factor == AdapterFactor::kBase) continue;
      check_type(entry);
      if (name.module == "model.embed_tokens" && !base_.contains("lm_head.weight"))
        fail_tensor(entry, "is an embedding of its own, and the base's is the head too (tie_word_embeddings)",
                    "merge the adapter with PEFT");
      result_.whole.push_back({name.module, &entry});
    }
    std::ranges::sort(result_.whole, {}, &AdapterWhole::module);
    const auto twice = std::ranges::adjacent_find(result_.whole, {}, &AdapterWhole::module);
    if (twice != result_.whole.end()) fail(fmt::format("has {} twice", twice->module), kDamagedAdapter);
    for (const auto& [weight, shape] : base_) check_complete(module_of(weight));
    check_complete("lm_head");  // also of a base that has none of its own
  }

  void check_complete(const std::string& module) const {
    const auto names = [&](const std::string& entry) {
      return names_module(entry, module);
    };
    if (std::ranges::none_of(config_.modules_to_save, names)) return;
    const auto found = std::ranges::lower_bound(result_.whole, module, {}, &AdapterWhole::module);
    if (found == result_.whole.end() || found->module != module)
      fail(fmt::format("has no {}, which modules_to_save names", module), kDamagedAdapter);
  }

  void check_any() const {
    if (!result_.pairs.empty()) return;
    if (result_.whole.empty()) fail("has no pair", kDamagedAdapter);
    if (config_.has_targets)
      fail(fmt::format("has whole weights, and no pair of what {} targets", kAdapterConfigFile), kDamagedAdapter);
  }

  StoredPairs stored_pairs(const StoredTensors& tensors) const {
    StoredPairs pairs;
    for (const FileTensor& entry : tensors) {
      const AdapterTensorName name = parse_adapter_name(entry.first, where_);
      if (name.factor == AdapterFactor::kWhole || name.factor == AdapterFactor::kBase) continue;
      const StoredTensor& stored = entry.second;
      check_type(entry);
      if (stored.shape.rank() != 2)
        fail_tensor(entry, fmt::format("has shape {}, not two dimensions", stored.shape.str()),
                    "save the adapter with PEFT's save_pretrained");
      StoredPair& pair = pairs[{name.module, name.kind}];
      const FileTensor*& place = name.factor == AdapterFactor::kA ? pair.a : pair.b;
      if (place != nullptr)
        fail_tensor(entry, fmt::format("is the same factor as '{}'", printable(place->first, 200)), kDamagedAdapter);
      place = &entry;
      pair.peft = name.peft;
    }
    for (const auto& [key, pair] : pairs)
      if (pair.a == nullptr || pair.b == nullptr) {
        const FileTensor& there = pair.a == nullptr ? *pair.b : *pair.a;
        const AdapterFactor missing = pair.a == nullptr ? AdapterFactor::kA : AdapterFactor::kB;
        fail_tensor(there, fmt::format("comes without its {}", factor_name(key.first, missing)), kDamagedAdapter);
      }
    return pairs;
  }

  const Shape& base_shape(const std::string& module, const FileTensor& entry) const {
    const auto found = base_.find(module + ".weight");
    if (found == base_.end())
      fail_tensor(entry, fmt::format("is of {}, which the base does not have", module), kOtherBase);
    return found->second;
  }

  void check_rank(const FileTensor& entry, int64_t stored, int64_t rank) const {
    if (stored != rank)
      fail_tensor(entry, fmt::format("has rank {}, but {} says {}", stored, kAdapterConfigFile, rank),
                  "the tensors and the configuration are not of one adapter");
  }

  // Throws where a tensor has not this shape, of which its own rank is a part.
  void check_shape(const FileTensor& entry, const Shape& wanted) const {
    if (!(entry.second.shape == wanted))
      fail_tensor(entry, fmt::format("has shape {}, but the base asks for {}", entry.second.shape.str(), wanted.str()),
                  kOtherBase);
  }

  void add_plain(const std::string& module, const StoredPair& stored) {
    const Shape& weight = base_shape(module, *stored.a);
    const int64_t rank = config_.rank_of(stored.peft), in = weight[1], out = weight[0];
    const bool turned = is_embedding_factor(stored.a->first);
    if (turned && !base_.contains("lm_head.weight"))
      fail_tensor(*stored.a, "is of the embedding, and the base's is the head too (tie_word_embeddings)",
                  "merge the adapter with PEFT");
    const Shape &a_shape = stored.a->second.shape, &b_shape = stored.b->second.shape;
    const int a_rank = turned ? 1 : 0, b_rank = 1 - a_rank;  // the dimension that is the rank
    if (a_shape[1 - a_rank] == in && b_shape[1 - b_rank] == out) {
      check_rank(*stored.a, a_shape[a_rank], rank);
      check_rank(*stored.b, b_shape[b_rank], rank);
    }
    check_shape(*stored.a, turned ? Shape{in, rank} : Shape{rank, in});
    check_shape(*stored.b, turned ? Shape{rank, out} : Shape{out, rank});
    const FactorPlace a = turned ? FactorPlace{stored.a, 0, 1, rank} : FactorPlace{stored.a, 0, in, 1},
                      b = turned ? FactorPlace{stored.b, 0, 1, out} : FactorPlace{stored.b, 0, rank, 1};
    result_.pairs.push_back({module, rank, in, out, config_.scaling_of(stored.peft), a, b});
  }

  // Whether the parameter that wraps the experts is gate_up_proj: the only one, as the configuration says.
  bool is_gate_up(const std::string& experts, AdapterTensorKind kind, const FileTensor& entry) const {
    if (kind == AdapterTensorKind::kPackedInner) return true;
    if (has_inner_.contains(experts)) return false;
    const bool gate_up = config_.targets_parameter("gate_up_proj"), down = config_.targets_parameter("down_proj");
    if (gate_up == down)
      fail_tensor(entry, "is of one packed parameter, and target_parameters does not say of which", kDamagedAdapter);
    return gate_up;
  }

  PackedPair packed_pair(const std::string& experts, AdapterTensorKind kind, const StoredPair& stored) {
    if (kind == AdapterTensorKind::kPackedInner) has_inner_.insert(experts);
    PackedPair packed{.experts = experts, .stored = stored};
    const bool gate_up = is_gate_up(experts, kind, *stored.a);
    packed.matrices = gate_up ? std::vector{"w1", "w3"} : std::vector{"w2"};
    const Shape& one = base_shape(fmt::format("{}.0.{}", experts, packed.matrices[0]), *stored.a);
    packed.in = one[1];
    packed.out = one[0];
    while (base_.contains(fmt::format("{}.{}.{}.weight", experts, packed.experts_count, packed.matrices[0])))
      ++packed.experts_count;
    const std::string parameter = fmt::format("{}.{}", stored.peft, gate_up ? "gate_up_proj" : "down_proj");
    packed.rank = config_.rank_of(parameter);
    packed.scaling = config_.scaling_of(parameter);
    return packed;
  }

  // Whether A and B are as a PEFT before 0.19.1 made them of the same parameter: each in the other's place. The shapes
  // of any one parameter may say so; where all are the same either way, the version does.
  bool is_transposed(const std::vector<PackedPair>& packed) const {
    std::optional<bool> transposed;
    for (const PackedPair& p : packed) {
      const Shape &a = p.stored.a->second.shape, &b = p.stored.b->second.shape;
      const bool is_new = a[1] == p.in && b[0] == p.all_out(), is_old = a[1] == p.all_out() && b[0] == p.in;
      if (!is_new && !is_old)
        fail_tensor(*p.stored.a,
                    fmt::format("has shape {} and its lora_B {}, which do not fit the base's experts, {} to {}",
                                a.str(), b.str(), p.in, p.all_out()),
                    kOtherBase);
      if (is_new == is_old) continue;
      if (transposed.value_or(is_old) != is_old)
        fail_tensor(*p.stored.a, "is packed in another way than others of the file", kDamagedAdapter);
      transposed = is_old;
    }
    if (packed.empty() || transposed) return transposed.value_or(false);
    const auto version = config_.version();
    if (!version)
      fail_tensor(*packed[0].stored.a,
                  "may be packed as PEFT does it from 0.19.1 on, or as before: its shape is the same",
                  "add the peft_version that saved it to adapter_config.json");
    return *version < std::array{0, 19, 1};
  }

  void add_packed(const PackedPair& p) {
    const bool transposed = result_.layout.transposed;
    const auto all_ranks = [&](const FileTensor& entry, int dim) {
      const int64_t stored = entry.second.shape[dim];
      if (stored % p.experts_count != 0)
        fail_tensor(entry, fmt::format("has {} ranks in all, for {} experts", stored, p.experts_count), kOtherBase);
      check_rank(entry, stored / p.experts_count, p.rank);
    };
    all_ranks(*p.stored.a, 0);
    all_ranks(*p.stored.b, 1);
    result_.layout.double_rank |= !transposed && p.matrices.size() == 2 && p.rank == 2 * config_.r;
    const int64_t width = p.stored.a->second.shape[1], all = p.rank * p.experts_count;
    for (int64_t e = 0; e < p.experts_count; ++e)
      for (size_t m = 0; m < p.matrices.size(); ++m) {
        const int64_t row = static_cast<int64_t>(m) * p.out;
        // In the file, rows of A have the expert slowest, and columns of B have it fastest.
        const FactorPlace new_a{p.stored.a, e * p.rank * width, width, 1};
        const FactorPlace new_b{p.stored.b, row * all + e, all, p.experts_count};
        const FactorPlace old_a{p.stored.b, e, p.experts_count, all};
        const FactorPlace old_b{p.stored.a, e * p.rank * width + row, 1, width};
        result_.pairs.push_back({fmt::format("{}.{}.{}", p.experts, e, p.matrices[m]), p.rank, p.in, p.out, p.scaling,
                                 transposed ? old_a : new_a, transposed ? old_b : new_b});
      }
  }

  const AdapterConfig& config_;
  const BaseShapes& base_;
  const std::string& where_;
  std::set<std::string> has_inner_;  // kPackedInner comes before kPackedOuter of the same experts
  AdapterPairs result_;
};

}  // namespace

AdapterPairs adapter_pairs(const StoredTensors& tensors, const AdapterConfig& config, const BaseShapes& base,
                           const std::string& where) {
  return PairReader(config, base, where).read(tensors);
}

}  // namespace mixtune
