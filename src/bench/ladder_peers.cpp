#include "bench/ladder_peers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/file.h"
#include "base/json.h"
#include "base/json_value.h"
#include "bench/measure.h"

namespace mixtune {

namespace {

using nlohmann::ordered_json;

constexpr std::string_view kMend = "make it with bench/peers/ladder.py";
constexpr size_t kMostBytes = 1 << 20, kMostRows = 16;
constexpr size_t kLongestName = 32, kLongestVersions = 80, kLongestReason = 400;  // bytes
constexpr double kMostMilliseconds = 1e9;

[[noreturn]] void refuse(const std::string& place, std::string_view what) {
  throw UserError(place, what, kMend);
}

// The member of an object; null where there is none.
const ordered_json& member(const ordered_json& object, const char* key) {
  static const ordered_json none;
  const auto found = object.find(key);
  return found == object.end() ? none : *found;
}

// The table and the chart show it as it is.
std::string plain_text(const ordered_json& value, const std::string& place, size_t longest) {
  const auto* text = value.get_ptr<const std::string*>();
  const auto plain = [](char c) {
    return c >= ' ' && c <= '~';
  };
  if (!text || text->empty() || text->size() > longest || !std::ranges::all_of(*text, plain))
    refuse(place, fmt::format("is no text of 1 to {} ASCII characters", longest));
  return *text;
}

LadderRow read_row(const ordered_json& row, const std::string& place) {
  if (!row.is_object()) refuse(place, "is no object");
  LadderRow peer = {.name = plain_text(member(row, "name"), place + ".name", kLongestName),
                    .versions = plain_text(member(row, "versions"), place + ".versions", kLongestVersions)};
  if (const ordered_json& reason = member(row, "skipped"); !reason.is_null()) {
    const auto* text = reason.get_ptr<const std::string*>();
    if (!text || text->empty()) refuse(place + ".skipped", "is no text");
    peer.skipped = printable(*text, kLongestReason);
    return peer;
  }
  const ordered_json& time = member(row, "milliseconds");
  if (time.is_number()) peer.milliseconds = time.get<double>();
  if (!(peer.milliseconds > 0 && peer.milliseconds <= kMostMilliseconds))
    refuse(place + ".milliseconds", fmt::format("is no number above 0 and up to {}", kMostMilliseconds));
  if (const ordered_json& bytes = member(row, "peak_bytes"); bytes.is_number_unsigned())
    peer.peak_bytes = bytes.get<size_t>();
  else if (!bytes.is_null())
    refuse(place + ".peak_bytes", "is no number of bytes");
  return peer;
}

std::string shown(const ordered_json& value) {
  return printable(value.dump());
}

// Holds each fact of `ours` against the peers'.
void check_workload(const ordered_json& theirs, const ordered_json& ours, const std::string& place) {
  if (!theirs.is_object()) refuse(place, "is no object");
  for (const auto& [key, value] : ours.items()) {
    const ordered_json& other = member(theirs, key.c_str());
    if (value.is_object())
      check_workload(other, value, place + "." + key);
    else if (other != value)
      throw UserError(place + "." + key, fmt::format("is {}, and here it is {}", shown(other), shown(value)),
                      "measure the peers on this machine with the same flags");
  }
}

}  // namespace

ordered_json workload_of(const LadderBench& bench) {
  const StepBench& step = bench.step;
  const MixtralConfig& model = step.model;
  return {{"device", device_name(step.options.device)},
          {"ranks", step.options.ranks->grid.world},
          {"tokens", step.tokens},
          {"accumulate", step.accumulate},
          {"document_tokens", step.sequence_length / step.documents_per_row},
          {"balanced", step.balanced},
          {"max_grad_norm", step.max_grad_norm},
          {"model",
           {{"vocab_size", model.vocab_size},
            {"hidden_size", model.hidden_size},
            {"intermediate_size", model.intermediate_size},
            {"num_hidden_layers", model.num_hidden_layers},
            {"num_attention_heads", model.num_attention_heads},
            {"num_key_value_heads", model.num_key_value_heads},
            {"head_dim", model.head_dim},
            {"num_local_experts", model.num_local_experts},
            {"num_experts_per_tok", model.num_experts_per_tok}}}};
}

std::vector<LadderRow> read_ladder_peers(const std::string& path, const LadderBench& bench) {
  const std::string file = printable_path(path);
  const ordered_json all = parse_ordered_json_object(read_small_file(path, kMostBytes, kMend), file, kMend, 4);
  check_workload(member(all, "workload"), workload_of(bench), file + ": workload");
  const ordered_json& rows = member(all, "rows");
  if (!rows.is_array() || rows.empty() || rows.size() > kMostRows)
    refuse(file + ": rows", fmt::format("is no list of 1 to {} rows", kMostRows));
  std::vector<LadderRow> peers;
  for (const ordered_json& row : rows) peers.push_back(read_row(row, fmt::format("{}: rows[{}]", file, peers.size())));
  return peers;
}

}  // namespace mixtune
