#include "metrics/tensorboard_sink.h"

#include <fmt/format.h>

#include <chrono>

#include "base/staged.h"
#include "metrics/fields.h"

namespace mixtune {

namespace {

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

const std::string& begun(const std::string& path, int64_t first_step) {
  const double now = wall_time();
  write_whole_file(path, framed(opening_event(now)) + framed(session_event(now, first_step)), Existing::kRefused);
  return path;
}

const char* tag_of(const ScalarField<StepRecord>& field, const StepRecord&) {
  return field.tag;
}

template <class Record, class Fields>
std::vector<Scalar> scalars_of(const Record& record, const Fields& fields) {
  std::vector<Scalar> scalars;
  for (const ScalarField<Record>& field : fields)
    if (*field.tag != '\0')
      scalars.push_back({tag_of(field, record), static_cast<float>(field.get(record) * field.tag_factor)});
  return scalars;
}

void add_scalars(const ParallelRecord& r, std::vector<Scalar>& scalars) {
  for (const RankField& field : kRankFields)
    for (size_t rank = 0; rank < r.ranks.size(); ++rank)
      scalars.push_back({fmt::format("rank_{}/{}", field.name, rank), static_cast<float>(field.get(r.ranks[rank]))});
  for (size_t expert = 0; expert < r.expert_tokens.size(); ++expert)
    scalars.push_back({fmt::format("expert_tokens/{}", expert), static_cast<float>(r.expert_tokens[expert])});
  scalars.push_back({"expert_imbalance", static_cast<float>(r.expert_imbalance)});
}

void add_scalars(const std::vector<OperandLoss>& operands, std::vector<Scalar>& scalars) {
  for_each_number(
      operands,
      [&](const std::string& name, double share) {
        scalars.push_back({name, static_cast<float>(share)});
      },
      [&](const std::string& name, const std::vector<double>& of_layers) {
        for (size_t layer = 0; layer < of_layers.size(); ++layer)
          scalars.push_back({fmt::format("{}/{}", name, layer), static_cast<float>(of_layers[layer])});
      });
}

}  // namespace

TensorBoardSink::TensorBoardSink(const std::string& path, int64_t first_step) : file_(begun(path, first_step), true) {}

void TensorBoardSink::step(const StepRecord& r) {
  std::vector<Scalar> scalars = scalars_of(r, kStepFields);
  if (r.parallel) add_scalars(*r.parallel, scalars);
  if (r.operands) add_scalars(*r.operands, scalars);
  write(r.step, scalars);
}

void TensorBoardSink::evaluation(const EvalRecord& r) {
  write(r.step, scalars_of(r, kEvalFields));
}

void TensorBoardSink::write(int64_t step, const std::vector<Scalar>& scalars) {
  file_.write(framed(scalars_event(wall_time(), step, scalars)));
}

}  // namespace mixtune
