#include "report/run_records.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <string_view>

#include "base/json_number.h"
#include "base/json_value.h"
#include "base/lines.h"
#include "metrics/fields.h"
#include "run/records.h"

namespace mixtune {

namespace {

using nlohmann::json;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kLargestCount = int64_t{1} << 40;  // of tokens or steps: sums of kMostRecords stay in 64 bits

// What is no curve: where a record stands, and what is drawn as something else.
constexpr std::string_view kNotNumbers[] = {"step", "total_steps", "epoch", "expert_tokens", "layer_expert_tokens"};
// What a step without a target does not have, although it has a 0 there.
constexpr std::string_view kOfTargets[] = {
    "loss",         "lm_loss",        "aux_loss",           "grad_norm", "router_grad_norm",   "expert_imbalance",
    "expert_share", "router_entropy", "router_logit_scale", "drop_rate", "dropped_tokens_rate"};

struct Share {
  const char *field, *name;
};
constexpr Share kShares[] = {{"rank_exchange_milliseconds", "all-to-all"},
                             {"rank_exchange_exposed_milliseconds", "all-to-all, not hidden"},
                             {"rank_collective_milliseconds", "all collectives, not hidden"}};

bool contains(std::span<const std::string_view> names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

bool is_share(std::string_view name) {
  return std::ranges::any_of(kShares, [&](const Share& share) { return share.field == name; });
}

double number_or_none(const json& value) {
  return value.is_number() ? value.get<double>() : kNone;
}

std::vector<double> numbers_of(const json& list) {
  std::vector<double> numbers;
  for (const json& value : list) numbers.push_back(number_or_none(value));
  return numbers;
}

// The numbers of the record that the object has; a whole one that it lacks is 0, another NaN. None where one that must
// be whole is not, or is larger than any of a run.
template <class Record, class NameOf>
std::optional<Record> record_of(const json& object, std::span<const ScalarField<Record>> fields, NameOf name_of_field) {
  Record record;
  for (const ScalarField<Record>& field : fields) {
    const auto value = object.find(name_of_field(field));
    const bool whole = std::holds_alternative<int64_t Record::*>(field.member);
    if (value == object.end() || !whole) {
      field.set(record, whole ? 0 : value == object.end() ? kNone : number_or_none(*value));
      continue;
    }
    const int64_t count = whole_number(*value);
    if (count < 0 || count > kLargestCount) return {};
    field.set(record, static_cast<double>(count));
  }
  return record;
}

// Of each rank what is watched; none where that is not there.
std::vector<RankRecord> ranks_of(const json& object) {
  std::vector<RankRecord> ranks;
  const auto times = object.find("rank_exchange_exposed_milliseconds");
  if (times == object.end() || !times->is_array()) return ranks;
  for (const double number : numbers_of(*times)) ranks.push_back({.exchange_exposed_milliseconds = number});
  return ranks;
}

// The set's name in a name such as "eval_chat_loss"; none where it is another number's.
std::optional<std::string> evaluated_set(std::string_view name) {
  constexpr std::string_view kBegin = "eval_", kEnd = "_loss";
  if (name == "eval_loss") return "";
  if (!name.starts_with(kBegin) || !name.ends_with(kEnd) || name.size() <= kBegin.size() + kEnd.size()) return {};
  return std::string(name.substr(kBegin.size(), name.size() - kBegin.size() - kEnd.size()));
}

// That of this name, a new one where there is room; null where there is none.
Series* series_of(std::vector<NamedSeries>& all, std::string_view name) {
  const auto found = std::ranges::find(all, name, &NamedSeries::name);
  if (found != all.end()) return &found->series;
  return all.size() < RunRecords::kMostNames ? &all.emplace_back(NamedSeries{std::string(name), {}}).series : nullptr;
}

}  // namespace

RunRecords::RunRecords(const std::string& path) {
  for (const auto& field : kStepFields)
    if (!contains(kNotNumbers, field.name)) numbers_.push_back({field.name, {}});
  const InputFile file(path, "name a run's output folder");
  LineReader lines(file, kLongestRecord);
  for (int64_t records = 0; const std::optional<Line> line = lines.next(); ++records) {
    is_cut_off_ = records == kMostRecords;
    if (is_cut_off_) break;
    add_line(line->text);
  }
}

void RunRecords::add_line(const std::string& line) {
  const json object = json::parse(line, nullptr, false);
  const int64_t step = object.is_object() && object.contains("step") ? whole_number(object["step"]) : -1;
  const bool known = step >= 0 && step <= kLargestCount && (add_step(object, step) || add_evaluation(object, step));
  if (!known) {
    ++unread_;
    return;
  }
  if (first_step_ < 0) first_step_ = step;
  first_step_ = std::min(first_step_, step);
  last_step_ = std::max(last_step_, step);
}

bool RunRecords::add_step(const json& object, int64_t step) {
  if (!object.contains("loss") || step <= last_trained_) return false;
  const std::optional<StepRecord> record = record_of<StepRecord>(
      object, kStepFields, [](const ScalarField<StepRecord>& field) { return std::string(field.name); });
  if (!record) return false;
  last_trained_ = step;
  ++steps_;
  total_steps_ = record->total_steps;
  add_numbers(object, *record);
  add_parallel(object, *record);
  add_summary(object, *record);
  return true;
}

void RunRecords::add_numbers(const json& object, const StepRecord& record) {
  for (const auto& [name, value] : object.items()) {
    if (contains(kNotNumbers, name) || is_share(name)) continue;
    const bool list = value.is_array() && !value.empty() && value[0].is_number();
    if (!value.is_number() && !value.is_null() && !list) continue;
    const bool lacks = record.target_tokens == 0 && contains(kOfTargets, name);
    if (Series* series = series_of(numbers_, name))
      series->add(record.step,
                  list ? Spread::of(numbers_of(value)) : Spread::of(lacks ? kNone : number_or_none(value)));
  }
}

void RunRecords::add_parallel(const json& object, const StepRecord& record) {
  if (const auto tokens = object.find("expert_tokens"); tokens != object.end() && tokens->is_array())
    load_.add(record.step, numbers_of(*tokens));
  if (const auto layers = object.find("layer_expert_tokens"); layers != object.end() && layers->is_array()) {
    std::vector<std::vector<double>> tokens;
    for (const json& layer : *layers) tokens.push_back(layer.is_array() ? numbers_of(layer) : std::vector<double>());
    layer_load_.add(tokens);
  }
  for (const auto& [field, name] : kShares) {
    const auto times = object.find(field);
    if (times == object.end() || !times->is_array() || !(record.milliseconds > 0)) continue;
    series_of(shares_, name)
        ->add(record.step, Spread::of(100 * Spread::of(numbers_of(*times)).mean / record.milliseconds));
  }
}

void RunRecords::add_summary(const json& object, StepRecord record) {
  const ParallelRecord parallel = {.ranks = ranks_of(object)};
  if (!parallel.ranks.empty()) record.parallel = &parallel;
  alerts_.look(record);
  record.parallel = nullptr;
  if (!Series::is_shown(record.milliseconds)) return;
  tokens_ += static_cast<double>(record.tokens);
  milliseconds_ += record.milliseconds;
  summary_.add(record);
}

bool RunRecords::add_evaluation(const json& object, int64_t step) {
  std::optional<std::string> set;
  for (const auto& [name, value] : object.items())
    if (!set && (value.is_number() || value.is_null())) set = evaluated_set(name);
  if (!set || object.contains("loss")) return false;
  const EvalRecord named = {.name = *set};
  std::optional<EvalRecord> record = record_of<EvalRecord>(
      object, kEvalFields, [&](const ScalarField<EvalRecord>& field) { return name_of(field, named); });
  Series* series = record ? series_of(evaluations_, *set) : nullptr;
  if (series == nullptr || (series->whole().count + series->whole().holes > 0 && step <= series->whole().last))
    return false;
  record->name = *set;
  series->add(step, Spread::of(record->eval_loss));
  alerts_.look(*record);
  if (!Series::is_shown(record->milliseconds)) record->milliseconds = 0;
  summary_.add(*record);
  return true;
}

const Series* RunRecords::find(const std::string& name) const {
  const auto found = std::ranges::find(numbers_, name, &NamedSeries::name);
  return found == numbers_.end() || found->series.empty() ? nullptr : &found->series;
}

}  // namespace mixtune
