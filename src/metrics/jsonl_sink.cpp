#include "metrics/jsonl_sink.h"

#include <fmt/format.h>

#include "base/json_value.h"
#include "metrics/fields.h"

namespace mixtune {

namespace {

// Adds the numbers that `fields` says.
template <class Record, class Fields>
void add(const Record& record, const Fields& fields, nlohmann::ordered_json& object) {
  for (const Field<Record>& field : fields) field.of(record, [&](auto number) { object[field.name] = number; });
}

void add(const ParallelRecord& r, nlohmann::ordered_json& object) {
  for (const RankField& field : kRankFields) {
    nlohmann::ordered_json& values = object[fmt::format("rank_{}", field.name)];
    for (const RankRecord& rank : r.ranks) field.of(rank, [&](auto number) { values.push_back(number); });
  }
}

void add(const RouterRecord& r, bool layers, nlohmann::ordered_json& object) {
  object["expert_tokens"] = r.expert_tokens;
  if (!layers) return;
  object["layer_expert_tokens"] = r.layer_expert_tokens;
  for (const LayerField& field : kLayerFields)
    if (!(r.*field.numbers).empty()) object[field.name] = r.*field.numbers;
}

}  // namespace

void JsonlSink::step(const StepRecord& r) {
  nlohmann::ordered_json object;
  add(r, kStepFields, object);
  if (!r.plans.empty()) object["plans"] = r.plans;
  if (r.parallel) add(*r.parallel, object);
  if (r.routers) add(*r.routers, shows_layers(r.step), object);
  const auto set = [&](const std::string& name, const auto& value) {
    object[name] = value;
  };
  if (r.operands) for_each_number(*r.operands, set, set);
  file_.write(object.dump() + '\n');
}

void JsonlSink::evaluation(const EvalRecord& r) {
  nlohmann::ordered_json object;
  for (const Field<EvalRecord>& field : kEvalFields)
    field.of(r, [&](auto number) { object[name_of(field, r)] = number; });
  file_.write(object.dump() + '\n');
}

}  // namespace mixtune
